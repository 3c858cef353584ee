"""The demonstration from plan to verdict; `siyu demo` calls it once the stack is up."""

import asyncio
import hashlib
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console

from services.console.demo import rules
from services.console.demo.barrier import NeverHeard
from services.console.demo.books import Books, Reader
from services.console.demo.brand import PLATFORM_CLIENT, Brand, create_brand
from services.console.demo.calls import StopWatch, Wire, reason_of
from services.console.demo.cpu import cpu_seconds
from services.console.demo.dataset import DataSet, DataSetError, parse_weeks
from services.console.demo.first_calls import Showcase, choose
from services.console.demo.first_calls import first_calls as calls_to_paste
from services.console.demo.opening import Opening, OpeningFailed
from services.console.demo.plan import Plan, make_plan
from services.console.demo.reference import ReferenceFailed, expected_books
from services.console.demo.replay import Replay, Result, UploadRefused
from services.console.demo.report import show_checks, show_report, weeks_told
from services.console.demo.seed import late_evening, open_shops
from services.console.demo.supply import NeverAsked
from services.console.demo.verdict import Check, Expected, coverage_checks, engine_checks
from services.console.stack.local import LocalStack
from services.console.stack.refusals import StackRefused
from services.console.tenants import remember_tenant, replaying
from services.runtime.errors import DomainError
from services.runtime.ids import new_id
from services.runtime.settings import SERVICES

BRAND_FILE = "brand.json"
SHOWCASE_FILE = "showcase.json"


class DemoFailed(StackRefused):
    """The demonstration did not come to its end; the message says why."""


_FAILURES = (DataSetError, OpeningFailed, ReferenceFailed, NeverHeard, NeverAsked, UploadRefused, DomainError)


class Demo:
    """One demonstration over a running stack; what it leaves is in the stack's directory."""

    def __init__(
        self, stack: LocalStack, *, seed: str, console: Console, via_edge: bool = True, one_in: int = 1
    ) -> None:
        """Tills and suppliers call through the edge, as they would in a city; head office calls from inside."""
        self._stack = stack
        self._seed = seed
        self._one_in = one_in
        self._console = console
        self._folder = stack.directory / "demo"
        self.watch = StopWatch()
        inside = {service: stack.addresses[service] for service in SERVICES}
        self._inside = Wire(inside)
        self._outside = Wire(dict.fromkeys(SERVICES, stack.addresses["edge"]) if via_edge else inside, watch=self.watch)

    async def run(self, weeks: str) -> list[Check]:
        """Plans, opens the shops, replays, reports; returns the checks of coverage and engine.

        Raises DemoFailed where it can't come to its end: one line says why."""
        try:
            return await self._run(weeks)
        except (*_FAILURES, ExceptionGroup) as failure:
            first = _first(failure)
            if not isinstance(first, _FAILURES):
                raise  # a bug of ours, told in full
            said = reason_of(first) if isinstance(first, DomainError) else first
            raise DemoFailed(f"the demonstration stopped: {said}") from failure
        finally:
            await self._inside.close()
            await self._outside.close()

    async def _run(self, weeks: str) -> list[Check]:
        data = await asyncio.to_thread(DataSet)
        chosen = parse_weeks(data, weeks)
        plan = await asyncio.to_thread(make_plan, data, weeks=chosen, seed=self._seed, one_in=self._one_in)
        self._introduce(data, plan)
        self._folder.mkdir(parents=True, exist_ok=True)
        plan_file = self._folder / "plan.json"
        plan_file.write_text(plan.text())
        reference = asyncio.create_task(expected_books(plan_file, self._folder / "expected.json"))
        try:
            brand = Brand.load(self._brand_file)
            anew = why_anew(brand, digest=_digest(plan)) if brand else ""
            if brand and not anew:
                self._console.print(f"brand {brand.code} is here since the last run; its books are read again")
                result = self._load_result()
            else:
                if brand:
                    self._console.print(
                        f"brand {brand.code}, of the last run, {anew}: a new one begins", soft_wrap=True
                    )
                with replaying(self._stack.directory):
                    brand = await self._create(plan)
                    opening = self._opening(brand, data, plan)
                    await open_shops(opening, console=self._console)
                    # the replay has the machine for itself
                    await reference
                    result = await self._replay(opening)
            expected = await reference
        finally:
            reference.cancel()
        books = await self._read(brand, expected)
        checks = self._judge(data, plan, result, books, expected)
        show_report(books, plan, result, expected, latencies=self.watch.latencies(), console=self._console)
        show_checks(checks, books, console=self._console)
        shown = await choose(self._opening(brand, data, plan), books)
        (self._folder / SHOWCASE_FILE).write_text(shown.text())
        return checks

    @property
    def _brand_file(self) -> Path:
        return self._folder / BRAND_FILE

    def _introduce(self, data: DataSet, plan: Plan) -> None:
        self._console.print(
            f"{rules.SIMULATED} {data.line_count:,} lines of a year; this replay: "
            f"{weeks_told(plan.weeks)} ({plan.first_day} to {plan.last_day}): {plan.sales:,} sales. "
            f"Seed {plan.seed!r}.",
            soft_wrap=True,
        )

    async def _create(self, plan: Plan) -> Brand:
        eve = date.fromisoformat(plan.first_day) - timedelta(days=1)
        brand = await create_brand(
            self._inside,
            platform_secret=self._stack.client_secret(PLATFORM_CLIENT),
            code=f"journey-{new_id()[:13]}",
            clock_at=late_evening(eve),
        )
        brand.plan = _digest(plan)
        # from its first moment, so that the audit knows a brand whose replay is interrupted
        remember_tenant(self._stack.directory, brand.tenant_id, unfinished=True)
        brand.save(self._brand_file)
        self._console.print(f"brand {brand.code}, tenant {brand.tenant_id}, test clock at the eve of {plan.first_day}")
        return brand

    def _opening(self, brand: Brand, data: DataSet, plan: Plan) -> Opening:
        days = {day: week for day, week in data.week_of_day().items() if week in plan.weeks}
        return Opening(
            wire=self._inside,
            outside=self._outside,
            brand=brand,
            admin=brand.caller("admin"),
            data=data,
            plan=plan,
            products=data.products(),
            days=days,
        )

    async def _replay(self, opening: Opening) -> Result:
        brand = opening.brand
        brand.save(self._brand_file)
        before = cpu_seconds(self._stack.pids)
        result = await Replay(opening).run(console=self._console)
        spent = cpu_seconds(self._stack.pids)
        result.cpu_s.update({name: seconds - before.get(name, 0.0) for name, seconds in spent.items()})
        remember_tenant(self._stack.directory, brand.tenant_id)
        brand.done = True
        brand.save(self._brand_file)
        (self._folder / "result.json").write_text(result.text())
        return result

    def _load_result(self) -> Result:
        return Result.of((self._folder / "result.json").read_text())

    async def _read(self, brand: Brand, expected: Expected) -> Books:
        self._console.print("reading the books")
        reader = Reader(self._inside, brand.caller("admin"))
        sales = {int(number) for number in expected["orders"]}
        return await reader.read(sales=sales, members=brand.members, parties=expected["parties"])

    def _judge(self, data: DataSet, plan: Plan, result: Result, books: Books, expected: Expected) -> list[Check]:
        return [
            *coverage_checks(
                result.coverage,
                books,
                whole_set_cents=data.sales_cents,
                window_cents=data.sales_cents_of(plan.weeks, one_in=plan.one_in),
                sales=plan.sales,
            ),
            *engine_checks(books, expected, plan),
        ]


async def run(
    stack: LocalStack,
    *,
    weeks: str,
    console: Console,
    seed: str = rules.SEED,
    via_edge: bool = True,
    one_in: int = 1,
) -> int:
    """The demonstration; 0 only if coverage and engine agree. The services' own audit is the caller's.

    `one_in` replays one household in so many: a test has every state of a fortnight in seconds.
    """
    demo = Demo(stack, seed=seed, console=console, via_edge=via_edge, one_in=one_in)
    return int(any(not check.ok for check in await demo.run(weeks)))


async def checks(stack: LocalStack, *, weeks: str, console: Console) -> list[Check]:
    """The demonstration, and the checks of coverage and engine, for a verdict together with the services' own."""
    return await Demo(stack, seed=rules.SEED, console=console).run(weeks)


def require_weeks(weeks: str) -> None:
    """Raises DemoFailed if no weeks are written like this: before anything is started."""
    try:
        parse_weeks(None, weeks)
    except DataSetError as failure:
        raise DemoFailed(str(failure)) from failure


def why_anew(brand: Brand, *, digest: str) -> str:
    """Why the brand of the last run is not the one to read again; empty if it is."""
    if not brand.done:
        return "was not finished; it stays, and the audit checks it too"
    return "" if brand.plan == digest else "is of other weeks, or of another plan"


def first_calls(stack: LocalStack) -> str:
    """What a person pastes first."""
    folder = stack.directory / "demo"
    brand = Brand.load(folder / BRAND_FILE)
    assert brand is not None, "the demonstration left no brand"
    return calls_to_paste(brand, Showcase.of((folder / SHOWCASE_FILE).read_text()), edge=stack.addresses["edge"])


def _first(failure: Exception) -> Exception:
    """The failure itself, or the first of many tills'."""
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    return failure


def _digest(plan: Plan) -> str:
    return hashlib.sha256(plan.text().encode()).hexdigest()

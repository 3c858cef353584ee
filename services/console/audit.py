"""The audit across services: each checks its own books, and here their answers are held against each other.

It opens no database. What one service says it sent, another must say it took: per partition the number of events and
the sum of their checksums agree only if every event was taken exactly once.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.console.stack.local import LocalStack, running_stack
from services.console.stack.refusals import StackRefused, WrongSetting
from services.console.stack.secrets import installation_secret, load_secrets
from services.console.stack.settings import StackSettings
from services.console.tenants import known_tenants, replayed_now
from services.runtime.settings import SERVICES, Settings, WrongSettingsError, from_environment
from siyu.common.v1 import audit_pb2, audit_pb2_grpc
from siyu.identity.v1 import client_pb2, client_pb2_grpc, tenant_pb2, tenant_pb2_grpc

AUDITOR = "service:console"
WAIT_S = 30.0
POLL_S = 0.25
ROUNDS = 3
CALL_TIMEOUT_S = 300.0
LOG_IN_TIMEOUT_S = 10.0
NO_CHECK = "-"
BETWEEN = "between services"
LOG_CHECK = "log_runs_on"
"""The check by which a service looks at its own log, after the service's name."""
OF_ALL = "* in the logs, which hold the events of all brands"
NOWHERE = (
    "no stack runs here: start one with `siyu stack` or `make run`, and audit it from a second terminal. To audit "
    "services that run elsewhere, set their addresses (SIYU_IDENTITY_ADDRESS and so on) and SIYU_SERVICE_SECRET, the "
    f"secret of the client {AUDITOR}; in a cluster, the job siyu-audit has them"
)
UNFINISHED = "whose replay was not finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """Who must take every event of whose log."""

    producer: str
    service: str
    queue: str

    def __str__(self) -> str:
        """As people say it."""
        return f"{self.producer} → {self.service}/{self.queue}"


CONSUMERS = (
    Consumer(producer="commerce", service="loyalty", queue="accrual"),
    Consumer(producer="commerce", service="campaign", queue="usage"),
    Consumer(producer="commerce", service="commerce", queue="fulfilment"),
    Consumer(producer="identity", service="loyalty", queue="members"),
    Consumer(producer="identity", service="campaign", queue="members"),
    Consumer(producer="identity", service="commerce", queue="members"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the audit. `lags` where it may only be early: a consumer has not come to the log's end.

    `of_all` where `examined` counts what is in a log: it is the installation's, and has every brand's events.
    """

    where: str
    check: str
    ok: bool
    examined: int = 0
    detail: str = ""
    lags: bool = False
    of_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A tenant and its findings. `note` tells what a reader should know of it, if anything."""

    tenant_id: str
    code: str
    findings: Sequence[Finding]
    note: str = ""

    def __str__(self) -> str:
        """The tenant as people know it."""
        name = f"{self.code} (tenant {self.tenant_id})" if self.code else f"tenant {self.tenant_id}"
        return f"{name}, {self.note}" if self.note else name


Answers = Mapping[str, audit_pb2.AuditResponse]


def compare(answers: Answers, *, consumers: Sequence[Consumer] = CONSUMERS) -> list[Finding]:
    """What no service can see alone: consumers against logs, and figures that two services both know."""
    findings = [_consumed(answers, consumer) for consumer in consumers]
    for name in sorted({name for answer in answers.values() for name in answer.figures}):
        told = {service: answer.figures[name] for service, answer in answers.items() if name in answer.figures}
        if len(told) > 1:
            detail = ", ".join(f"{service} {value:,}" for service, value in told.items())
            findings.append(
                Finding(
                    where=" = ".join(told),
                    check=name,
                    ok=len(set(told.values())) == 1,
                    examined=len(told),
                    detail=detail,
                )
            )
    return findings


def _consumed(answers: Answers, consumer: Consumer) -> Finding:
    """Whether the consumer took each event of the producer's log exactly once."""
    positions = {
        position.partition: position
        for position in answers[consumer.service].positions
        if position.producer == consumer.producer and position.queue == consumer.queue
    }
    wrong: list[str] = []
    lags = False
    examined = 0
    for head in answers[consumer.producer].log:
        examined += head.events_total
        at = positions.get(head.partition, audit_pb2.ConsumerPosition())
        lags = lags or at.seq < head.seq
        if at.seq != head.seq:
            wrong.append(f"partition {head.partition}: at block {at.seq} of {head.seq}")
        elif at.events_total != head.events_total:
            wrong.append(f"partition {head.partition}: took {at.events_total} events of {head.events_total}")
        elif at.checksum_total != head.checksum_total:
            wrong.append(f"partition {head.partition}: took other events than were sent")
    if not answers[consumer.producer].log:
        wrong.append(f"{consumer.producer} tells no log")
    return Finding(
        where=str(consumer),
        check="taken exactly once",
        ok=not wrong,
        examined=examined,
        detail="; ".join(wrong),
        lags=lags,
        of_all=True,
    )


def own_findings(answers: Answers) -> list[Finding]:
    """What each service found in its own schema. A service that checked nothing is a finding itself."""
    findings: list[Finding] = []
    for service, answer in answers.items():
        findings += [
            Finding(
                where=service,
                check=each.check,
                ok=each.ok,
                examined=each.examined,
                detail=each.detail,
                of_all=each.check == f"{service}.{LOG_CHECK}",
            )
            for each in answer.findings
        ]
        if not answer.findings:
            findings.append(Finding(where=service, check="audits itself", ok=False, detail="it told no finding"))
    return findings


class Auditor:
    """Asks the services of one installation for one tenant at a time."""

    def __init__(self, *, addresses: Mapping[str, str], client_secret: str) -> None:
        """`addresses` of the four services' gRPC apis; the secret is that of the console's own client."""
        self._addresses = addresses
        self._client_secret = client_secret

    async def audit(self, tenant_id: str, *, wait_s: float = WAIT_S) -> list[Finding]:
        """All findings for the tenant, after giving consumers up to `wait_s` to come to the ends of the logs.

        The tenant's trade rests meanwhile, or comes to rest within that time: a sale is in one service's books first.
        """
        token = await self._log_in(tenant_id)
        deadline_s = time.monotonic() + wait_s
        while time.monotonic() < deadline_s:
            quick = await self._ask(token, prefix=NO_CHECK)
            if not any(finding.lags for finding in compare(quick)):
                break
            await asyncio.sleep(POLL_S)
        for at in range(ROUNDS):
            answers = await self._ask(token, prefix="")
            compared = compare(answers)
            # the services answer one after the other: what was sold in between is in the later answers only
            if all(finding.ok for finding in compared) or at == ROUNDS - 1 or time.monotonic() >= deadline_s:
                return [*own_findings(answers), *compared]
            await asyncio.sleep(POLL_S)
        raise AssertionError("the last round returns")

    async def code_of(self, tenant_id: str) -> str:
        """The code that the tenant's operator chose."""
        token = await self._log_in(tenant_id)
        async with grpc.aio.insecure_channel(self._addresses["identity"]) as channel:
            reply: tenant_pb2.GetTenantResponse = await tenant_pb2_grpc.TenantServiceStub(channel).GetTenant(
                tenant_pb2.GetTenantRequest(),
                metadata=(("authorization", f"Bearer {token}"),),
                timeout=LOG_IN_TIMEOUT_S,
            )
        return reply.tenant.code

    async def _log_in(self, tenant_id: str) -> str:
        async with grpc.aio.insecure_channel(self._addresses["identity"]) as channel:
            reply = await client_pb2_grpc.TokenServiceStub(channel).IssueToken(
                client_pb2.IssueTokenRequest(client_id=AUDITOR, client_secret=self._client_secret, tenant_id=tenant_id),
                timeout=LOG_IN_TIMEOUT_S,
            )
        return str(reply.access_token)

    async def _ask(self, token: str, *, prefix: str) -> dict[str, audit_pb2.AuditResponse]:
        replies = await asyncio.gather(*(self._ask_one(service, token, prefix=prefix) for service in SERVICES))
        return dict(zip(SERVICES, replies, strict=True))

    async def _ask_one(self, service: str, token: str, *, prefix: str) -> audit_pb2.AuditResponse:
        async with grpc.aio.insecure_channel(self._addresses[service]) as channel:
            reply: audit_pb2.AuditResponse = await audit_pb2_grpc.AuditServiceStub(channel).Audit(
                audit_pb2.AuditRequest(check_prefix=prefix),
                metadata=(("authorization", f"Bearer {token}"),),
                timeout=CALL_TIMEOUT_S,
            )
            return reply


async def findings_of(stack: LocalStack, *, wait_s: float = WAIT_S) -> list[Audited]:
    """Audits the tenants that the console made in this stack, those included whose replay was interrupted."""
    auditor = Auditor(addresses=stack.addresses, client_secret=stack.client_secret(AUDITOR))
    return await findings_of_tenants(auditor, known_tenants(stack.directory), wait_s=wait_s)


async def audit_running(settings: StackSettings, *, tenants: tuple[str, ...], wait_s: float, console: Console) -> int:
    """Audits what runs: the local stack of this state directory, or the services that the environment names."""
    directory = settings.state_directory
    environment = running_stack(directory)
    if environment is None:
        try:
            told = from_environment(Settings)
        except WrongSettingsError as wrong:
            raise WrongSetting(str(wrong)) from None
        addresses = {service: told.address_of(service) for service in SERVICES}
        secret = told.service_secret
        if not secret:
            raise StackRefused(NOWHERE)
    else:
        addresses = {service: environment[f"SIYU_{service.upper()}_ADDRESS"] for service in SERVICES}
        secret = installation_secret(load_secrets(directory)["root_secret"], AUDITOR)
    auditor = Auditor(addresses=addresses, client_secret=secret)
    asked = dict.fromkeys(tenants, False) or tenants_at_rest(directory, console=console)
    return _told(await findings_of_tenants(auditor, asked, wait_s=wait_s), console=console)


def tenants_at_rest(directory: Path, *, console: Console) -> dict[str, bool]:
    """The known tenants but one that is being replayed just now, which a line tells: its books agree once it rests.

    Raises StackRefused if there is no other."""
    known = known_tenants(directory)
    moving = replayed_now(directory)
    if not moving:
        return known
    told = f"a replay is under way, and its brand (tenant {moving}) is audited when it is over"
    known.pop(moving)
    if not known:
        raise StackRefused(f"{told}: `make run` does so by itself")
    console.print(f"[dim]{escape(told)}[/dim]", soft_wrap=True)
    return known


async def findings_of_tenants(auditor: Auditor, tenants: Mapping[str, bool], *, wait_s: float) -> list[Audited]:
    """The findings of each; the tenants say whether their replay is unfinished.

    Raises StackRefused without a tenant, or where nobody answers."""
    if not tenants:
        raise StackRefused("there is no tenant to audit yet: name one with --tenant, or let `make run` make one")
    return [
        await _audited(auditor, tenant_id, note=UNFINISHED if unfinished else "", wait_s=wait_s)
        for tenant_id, unfinished in tenants.items()
    ]


async def _audited(auditor: Auditor, tenant_id: str, *, note: str, wait_s: float) -> Audited:
    """The tenant's findings. No answer is a failed check of this tenant, and those after it are audited all the same.

    Raises StackRefused where nobody is there to answer: the others' audits would say the same.
    """
    code = ""
    try:
        code = await auditor.code_of(tenant_id)
        findings = await auditor.audit(tenant_id, wait_s=wait_s)
    except grpc.aio.AioRpcError as error:
        told = f"a service did not answer the audit: {error.code().name}, {error.details()}"
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise StackRefused(told) from error
        findings = [Finding(where=BETWEEN, check="answers the audit", ok=False, detail=told)]
    return Audited(tenant_id=tenant_id, code=code, findings=findings, note=note)


def _told(found: Sequence[Audited], *, console: Console) -> int:
    for each in found:
        show(each, console=console)
    everything = [finding for each in found for finding in each.findings]
    return show_verdict([(finding.check, finding.ok) for finding in everything], console=console)


def show_verdict(checks: Sequence[tuple[str, bool]], *, console: Console, sum_of: str = "") -> int:
    """Prints one line over all checks, which are (name, holds); 0 only if all hold, as an exit code.

    `sum_of` tells a reader which of the figures above make the number."""
    differing = [name for name, holds in checks if not holds]
    if differing:
        named = f"{len(differing)} of {len(checks)} checks differ: {'; '.join(differing)}"
        console.print(f"[bold red]{escape(named)}[/bold red]", soft_wrap=True)
    else:
        told = f"{len(checks)} checks agree{f': {sum_of}' if sum_of else ''}."
        console.print(f"[bold green]{told}[/bold green]", soft_wrap=True)
    return 1 if differing else 0


def summarise(audited: Audited, *, console: Console) -> None:
    """Prints findings that all hold in a line per service, and one for what holds between them."""
    console.print(escape(f"The services' own books of {audited} (`make audit` lists every check):"), soft_wrap=True)
    for name in (*SERVICES, BETWEEN):
        own = [each for each in audited.findings if (each.where if each.where in SERVICES else BETWEEN) == name]
        rows = sum(each.examined for each in own if not each.of_all)
        logged = sum(each.examined for each in own if each.of_all)
        told = f"{rows:,} rows and {logged:,}*" if logged else f"{rows:,} rows"
        console.print(f"  [green]✓[/green] {name:<17} {len(own):>3} checks of {told}", soft_wrap=True)
    console.print(f"  [dim]{OF_ALL}[/dim]")


def show(audited: Audited, *, console: Console) -> None:
    """Prints the findings, one a row."""
    table = Table(title=escape(f"Audit of {audited}"), title_justify="left", caption=OF_ALL, caption_justify="left")
    table.add_column("where")
    table.add_column("check", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("", justify="center")
    table.add_column("detail", overflow="fold")
    for finding in audited.findings:
        mark = "[green]✓[/green]" if finding.ok else "[bold red]✗[/bold red]"
        examined = f"{finding.examined:,}{'*' if finding.of_all else ''}"
        table.add_row(finding.where, finding.check, examined, mark, escape(finding.detail))
    console.print(table)

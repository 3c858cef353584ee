"""Micro-batches: one tenant each, fair, bounded, and a bad item fails alone."""

import asyncio
from collections.abc import Sequence

import pytest

from services.runtime.batching import BUSY, COMPANY, EMPTY_STEPS, ENOUGH, Batcher
from services.runtime.call import deadline_in
from services.runtime.errors import Conflict, DomainError, Exhausted, Refused, TimedOut, Unavailable


class Ledger:
    """Doubles numbers, remembers its batches, and fails as told."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, tuple[int, ...]]] = []
        self.poison: set[int] = set()
        self.too_large: set[int] = set()
        self.run_s = 0.0
        self.outages = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, _lane: str, tenant_id: str, items: Sequence[int]) -> list[int | DomainError]:
        self.batches.append((tenant_id, tuple(items)))
        await self.gate.wait()
        await asyncio.sleep(self.run_s)
        if self.outages:
            self.outages -= 1
            raise Unavailable("the database is away")
        if self.poison & set(items):
            raise ValueError("a bad item")
        if self.too_large & set(items):
            if len(items) > 1:
                raise OverflowError("one of them is too large")
            return [Refused("too large", reason="TOO_LARGE")]
        return [Refused("negative", reason="NEGATIVE") if item < 0 else item * 2 for item in items]


async def outcomes(batcher: Batcher[str, int, int], items: Sequence[int], tenant_id: str = "t") -> list[object]:
    return await asyncio.gather(*(batcher.submit(tenant_id, item) for item in items), return_exceptions=True)


async def test_what_waits_goes_together_and_each_gets_its_own_verdict() -> None:
    ledger = Ledger()
    batcher = Batcher(["lane"], ledger.run)
    assert await outcomes(batcher, range(100)) == [number * 2 for number in range(100)]
    assert len(ledger.batches) <= 2
    await batcher.close()


async def test_a_batch_has_a_largest_size() -> None:
    ledger = Ledger()
    batcher = Batcher(["lane"], ledger.run, max_batch=10)
    await outcomes(batcher, range(95))
    assert max(len(items) for _, items in ledger.batches) == 10
    await batcher.close()


async def test_a_batch_is_of_one_tenant_and_tenants_take_turns() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    batcher = Batcher(["lane"], ledger.run, max_batch=4)
    loud = [asyncio.create_task(batcher.submit("loud", number)) for number in range(40)]
    await asyncio.sleep(0)
    quiet = [asyncio.create_task(batcher.submit("quiet", number)) for number in range(3)]
    await asyncio.sleep(0)
    ledger.gate.set()
    await asyncio.gather(*quiet)
    assert not all(task.done() for task in loud)
    await asyncio.gather(*loud)
    order = [tenant for tenant, _ in ledger.batches]
    # the quiet one's turn comes after at most the batch in flight and one more
    assert order.index("quiet") <= 2
    await batcher.close()


@pytest.mark.parametrize("poison", [{0}, {17}, {511}, {3, 200, 500}])
async def test_a_bad_item_fails_alone(poison: set[int]) -> None:
    ledger = Ledger()
    ledger.poison = poison
    batcher = Batcher(["lane"], ledger.run)
    verdicts = await outcomes(batcher, range(512))
    for number, verdict in enumerate(verdicts):
        if number in poison:
            assert isinstance(verdict, ValueError)
        else:
            assert verdict == number * 2
    await batcher.close()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(set(range(96)), id="neighbours"),
        pytest.param(set(range(0, 480, 5)), id="one in five"),
        pytest.param(set(range(511)), id="all but one"),
    ],
)
async def test_many_bad_items_fail_alone_as_well(bad: set[int]) -> None:
    ledger = Ledger()
    ledger.poison = {number for number in bad if number % 2}
    ledger.too_large = bad - ledger.poison
    batcher = Batcher(["lane"], ledger.run)
    for number, verdict in enumerate(await outcomes(batcher, range(512))):
        if number in ledger.poison:
            assert isinstance(verdict, ValueError)
        elif number in ledger.too_large:
            assert isinstance(verdict, Refused)
        else:
            assert verdict == number * 2
    await batcher.close()


async def test_a_batch_that_fails_slowly_whatever_is_taken_out_is_not_halved_for_ever() -> None:
    ledger = Ledger()
    ledger.poison = set(range(512))
    ledger.run_s = 0.01
    batcher = Batcher(["lane"], ledger.run, patience_s=0.05)
    verdicts = await outcomes(batcher, range(512))
    assert len(ledger.batches) <= 20
    assert {type(verdict) for verdict in verdicts} <= {ValueError, Unavailable}
    await batcher.close()


async def test_a_batch_with_too_few_verdicts_fails_and_the_lane_lives_on() -> None:
    ledger = Ledger()

    async def forgetful(lane: str, tenant_id: str, items: Sequence[int]) -> list[int | DomainError]:
        verdicts = await ledger.run(lane, tenant_id, items)
        return verdicts[1:] if len(ledger.batches) == 1 else verdicts

    batcher = Batcher(["lane"], forgetful)
    async with asyncio.timeout(1):
        refusals = await outcomes(batcher, [1, 2, 3])
        assert [type(refusal) for refusal in refusals] == [AssertionError] * 3
        assert await batcher.submit("t", 4) == 8
    await batcher.close()


async def test_a_refusal_is_a_verdict_and_no_failure() -> None:
    ledger = Ledger()
    batcher = Batcher(["lane"], ledger.run)
    verdicts = await outcomes(batcher, [1, -1, 2])
    assert verdicts[0] == 2
    assert isinstance(verdicts[1], Refused)
    assert verdicts[2] == 4
    assert len(ledger.batches) == 1
    await batcher.close()


async def test_a_short_outage_is_not_seen() -> None:
    ledger = Ledger()
    ledger.outages = 2
    batcher = Batcher(["lane"], ledger.run)
    assert await outcomes(batcher, [1, 2]) == [2, 4]
    assert len(ledger.batches) == 3
    await batcher.close()


async def test_a_long_outage_is_told_as_it_is() -> None:
    ledger = Ledger()
    ledger.outages = 1000
    batcher = Batcher(["lane"], ledger.run)
    assert all(isinstance(verdict, Unavailable) for verdict in await outcomes(batcher, [1, 2]))
    await batcher.close()


async def test_a_lost_race_is_run_again() -> None:
    runs = 0

    async def run(_lane: str, _tenant_id: str, items: Sequence[int]) -> list[int]:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise Conflict("another lane has the same key")
        return list(items)

    batcher = Batcher(["lane"], run)
    assert await outcomes(batcher, [1]) == [1]
    await batcher.close()


async def test_a_full_queue_refuses_and_leaves_room_for_others() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    batcher = Batcher(["lane"], ledger.run, max_batch=1, max_queue=8)
    first = asyncio.create_task(batcher.submit("other", 0))
    await asyncio.sleep(0.01)
    waiting = [asyncio.create_task(batcher.submit("loud", number)) for number in range(4)]
    waiting.append(asyncio.create_task(batcher.submit("quiet", 1)))
    await asyncio.sleep(0.01)
    with pytest.raises(Exhausted) as refused:
        await batcher.submit("loud", 9)
    assert refused.value.retry_after_s > 0
    # half of the places are still there for whoever is not as loud
    waiting += [asyncio.create_task(batcher.submit("quiet", number)) for number in range(3)]
    await asyncio.sleep(0.01)
    with pytest.raises(Exhausted):
        await batcher.submit("quiet", 9)
    ledger.gate.set()
    await asyncio.gather(first, *waiting)
    assert batcher.queued == 0
    await batcher.close()


async def test_who_filled_the_queue_alone_keeps_nobody_else_out() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    batcher = Batcher(["lane"], ledger.run, max_batch=1, max_queue=8)
    waiting = [asyncio.create_task(batcher.submit("loud", 0))]
    await asyncio.sleep(0.01)
    waiting += [asyncio.create_task(batcher.submit("loud", number)) for number in range(8)]
    await asyncio.sleep(0.01)
    with pytest.raises(Exhausted):
        await batcher.submit("loud", 9)
    # half of what there is for two, a third for three, and so on until there are twice as many as there are places
    waiting += [asyncio.create_task(batcher.submit("second", number)) for number in range(4)]
    await asyncio.sleep(0.01)
    with pytest.raises(Exhausted):
        await batcher.submit("second", 9)
    waiting += [asyncio.create_task(batcher.submit("third", number)) for number in range(2)]
    await asyncio.sleep(0.01)
    with pytest.raises(Exhausted):
        await batcher.submit("third", 9)
    waiting += [asyncio.create_task(batcher.submit(f"{number}th", number)) for number in range(4, 6)]
    await asyncio.sleep(0.01)
    with pytest.raises(Exhausted):
        await batcher.submit("6th", 9)
    ledger.gate.set()
    await asyncio.gather(*waiting)
    assert [tenant for tenant, _ in ledger.batches[:5]] == ["loud", "loud", "second", "third", "4th"]
    await batcher.close()


async def test_who_gave_up_is_not_worked_for() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    batcher = Batcher(["lane"], ledger.run, max_batch=10)
    busy = asyncio.create_task(batcher.submit("t", 0))
    await asyncio.sleep(0.01)
    cancelled = asyncio.create_task(batcher.submit("t", 1))
    late = asyncio.create_task(batcher.submit("t", 2, deadline_at=deadline_in(0.02)))
    in_time = asyncio.create_task(batcher.submit("t", 3, deadline_at=deadline_in(30)))
    await asyncio.sleep(0.05)
    cancelled.cancel()
    await asyncio.sleep(0)
    ledger.gate.set()
    assert await in_time == 6
    with pytest.raises(TimedOut):
        await late
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await busy
    assert ledger.batches[1:] == [("t", (3,))]
    await batcher.close()


async def test_lanes_work_side_by_side() -> None:
    busy: set[str] = set()
    most = 0

    async def run(lane: str, _tenant_id: str, items: Sequence[int]) -> list[int]:
        nonlocal most
        assert lane not in busy
        busy.add(lane)
        most = max(most, len(busy))
        await asyncio.sleep(0.01)
        busy.discard(lane)
        return list(items)

    batcher = Batcher(["a", "b", "c"], run, max_batch=5)
    assert await outcomes(batcher, range(60)) == list(range(60))
    assert most == 3
    await batcher.close()


async def test_close_finishes_what_waits_and_refuses_what_comes() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    batcher = Batcher(["a", "b"], ledger.run, max_batch=2)
    waiting = [asyncio.create_task(batcher.submit("t", number)) for number in range(9)]
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await batcher.submit("t", 1)
    ledger.gate.set()
    assert await asyncio.gather(*waiting) == [number * 2 for number in range(9)]
    await closing


class Steps:
    """Stands in for sleep: counts the steps that a lane waits, and lets company come in each of the first ones."""

    def __init__(self, company: int = 0) -> None:
        self.taken = 0
        self.company = company
        self.came: list[asyncio.Task[int]] = []
        self.batcher: Batcher[str, int, int] | None = None

    async def __call__(self, _seconds: float) -> None:
        self.taken += 1
        if self.batcher is not None and len(self.came) < self.company:
            self.came.append(asyncio.create_task(self.batcher.submit("t", 100 + len(self.came))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_lane_waits_while_company_comes() -> None:
    ledger, steps = Ledger(), Steps(company=5)
    batcher = Batcher(["lane", "another"], ledger.run, sleep=steps)
    await outcomes(batcher, range(COMPANY))
    steps.batcher = batcher
    assert await batcher.submit("t", 7) == 14
    assert await asyncio.gather(*steps.came) == [200, 202, 204, 206, 208]
    assert [len(items) for _, items in ledger.batches] == [COMPANY, 6], "all in one batch"
    assert steps.taken == 6, "until a step brought nobody"
    await batcher.close()


@pytest.mark.parametrize(("before", "patience"), [(BUSY - 1, 1), (BUSY, EMPTY_STEPS)])
async def test_a_lane_is_patient_after_a_large_batch(before: int, patience: int) -> None:
    """Its callers are on their way back, however few have come yet."""
    ledger, steps = Ledger(), Steps()
    batcher = Batcher(["lane"], ledger.run, sleep=steps)
    await outcomes(batcher, range(before))
    assert await batcher.submit("t", 7) == 14
    assert steps.taken == patience
    await batcher.close()


async def test_who_calls_alone_does_not_wait() -> None:
    ledger, steps = Ledger(), Steps()
    batcher = Batcher(["lane", "another"], ledger.run, sleep=steps)
    for number in range(200):
        assert await batcher.submit("t", number) == number * 2
    assert (len(ledger.batches), steps.taken) == (200, 0)
    await batcher.close()


async def test_a_lane_that_has_all_that_it_can_take_waits_no_longer() -> None:
    ledger, steps = Ledger(), Steps()
    batcher = Batcher(["lane"], ledger.run, max_batch=4, sleep=steps)
    await outcomes(batcher, range(COMPANY))
    for _ in range(100):
        await outcomes(batcher, range(4))
    assert steps.taken == 0
    await batcher.close()


async def test_a_batch_that_is_large_enough_waits_no_longer() -> None:
    ledger, steps = Ledger(), Steps()
    batcher = Batcher(["lane"], ledger.run, sleep=steps)
    await outcomes(batcher, range(COMPANY))
    for _ in range(100):
        await outcomes(batcher, range(ENOUGH))
    assert steps.taken == 0
    await batcher.close()

"""The bucket, and what is counted when Valkey does not answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.limits import Limits, LocalBuckets, Rate, take

RATE = Rate(per_s=10, burst=5)


@pytest.mark.parametrize(
    ("at_s", "may_go"),
    [
        pytest.param([0.0] * 5, [True] * 5, id="a burst"),
        pytest.param([0.0] * 6, [True] * 5 + [False], id="one more than a burst"),
        pytest.param([0.0] * 6 + [0.1], [True] * 5 + [False, True], id="one call later one is free"),
        pytest.param([0.0] * 6 + [0.09], [True] * 5 + [False, False], id="not sooner"),
        pytest.param([0.0] * 5 + [100.0] * 6, [True] * 10 + [False], id="never more than a burst at once"),
    ],
)
def test_a_bucket(at_s: list[float], may_go: list[bool]) -> None:
    full_at_s, found = 0.0, []
    for now_s in at_s:
        full_at_s, wait_s = take(full_at_s, RATE, now_s=now_s)
        found.append(wait_s == 0)
    assert found == may_go


@given(st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_burst_and_rate(steps: list[float]) -> None:
    now_s, full_at_s, passed = 0.0, 0.0, []
    for step in steps:
        now_s += step
        full_at_s, wait_s = take(full_at_s, RATE, now_s=now_s)
        if wait_s == 0:
            passed.append(now_s)
        else:
            assert take(full_at_s, RATE, now_s=now_s + wait_s + 1e-6)[1] == 0, "who waits as told may go"
    for first, begin in enumerate(passed):
        for count, end in enumerate(passed[first:], start=1):
            assert count <= RATE.burst + (end - begin) * RATE.per_s + 1e-6


def test_buckets_are_apart_and_forgotten() -> None:
    buckets = LocalBuckets()
    rate = Rate(per_s=1, burst=1)
    assert buckets.wait_s("a", rate, now_s=0) == 0
    assert buckets.wait_s("a", rate, now_s=0) > 0
    assert buckets.wait_s("b", rate, now_s=0) == 0


def test_what_is_given_back_is_as_if_not_taken() -> None:
    buckets = LocalBuckets()
    rate = Rate(per_s=1, burst=1)
    for _ in range(3):
        assert buckets.wait_s("a", rate, now_s=10) == 0
        buckets.give_back("a", rate)
    buckets.give_back("a", rate)
    buckets.give_back("never taken", rate)
    assert buckets.wait_s("a", rate, now_s=10) == 0
    assert buckets.wait_s("a", rate, now_s=10) > 0, "more than was taken can't be given back"


class Away:
    """A Valkey that does not answer, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0

    def register_script(self, _script: str) -> Any:
        async def run(**_: Any) -> int:
            self.asked += 1
            raise RedisConnectionError

        return run


async def test_without_valkey_it_counts_alone_and_does_not_ask_each_time() -> None:
    away = Away()
    limits = Limits(redis=away)  # type: ignore[arg-type]
    waits = [await limits.wait_s("client/a", RATE) for _ in range(20)]
    assert [wait == 0 for wait in waits[:5]] == [True] * 5
    assert all(wait > 0 for wait in waits[5:])
    assert away.asked == 1
    await limits.give_back("client/a", RATE)
    assert await limits.wait_s("client/a", RATE) == 0
    assert away.asked == 1

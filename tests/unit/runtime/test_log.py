"""How events become numbered blocks."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.log import MAX_EVENTS_PER_BLOCK, Block, Entry, Head, arrange, checksum, unpack

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def entry(
    aggregate: str = "o-1", version: int = 1, *, at_s: float = 0.0, tenant_id: str = "t", payload: bytes = b"p"
) -> Entry:
    return Entry(
        tenant_id=tenant_id,
        event_id=f"{tenant_id}/{aggregate}/{version}",
        type="commerce.OrderPaid",
        aggregate_type="order",
        aggregate_id=aggregate,
        version=version,
        partition=0,
        payload=payload,
        occurred_at=NOON,
        posted_at=NOON + timedelta(seconds=at_s),
        trace="",
    )


def names(blocks: tuple[Block, ...]) -> list[str]:
    return [event.event_id for block in blocks for event in unpack(block.payload).events]


def test_numbers_and_totals_go_on_from_the_head() -> None:
    head = Head(partition=0, seq=7, events_total=100, checksum_total=5)
    (block,) = arrange([entry()], {0: head})
    assert (block.seq, block.events, block.events_total) == (8, 1, 101)
    assert block.checksum_total == checksum(["t/o-1/1"], before=5)


def test_a_block_is_of_one_tenant() -> None:
    blocks = arrange([entry(tenant_id="a"), entry(tenant_id="b", at_s=1), entry("o-2", tenant_id="a", at_s=2)], {})
    assert [(block.seq, block.tenant_id, block.events) for block in blocks] == [(1, "a", 2), (2, "b", 1)]


def test_blocks_are_bounded_in_events_and_bytes() -> None:
    many = arrange([entry(version=number) for number in range(1, 601)], {})
    assert [block.events for block in many] == [MAX_EVENTS_PER_BLOCK, MAX_EVENTS_PER_BLOCK, 88]
    large = arrange([entry(version=number, payload=b"x" * 200_000) for number in range(1, 4)], {})
    assert [block.events for block in large] == [1, 1, 1]
    larger_than_any_block = arrange([entry(payload=b"x" * 5_000_000)], {})
    assert [block.events for block in larger_than_any_block] == [1]


def test_the_checksum_depends_on_the_set_and_not_on_the_order() -> None:
    assert checksum(["a", "b"]) == checksum(["b", "a"]) != checksum(["a", "a"])
    assert checksum(["b"], before=checksum(["a"])) == checksum(["a", "b"])
    assert 0 <= checksum([str(number) for number in range(1000)]) < 2**63


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50)), max_size=60),
    st.randoms(use_true_random=False),
)
def test_each_event_once_and_per_aggregate_by_version(drawn: list[tuple[int, int]], random: object) -> None:
    """Whatever the clocks said when the events were posted."""
    versions: dict[int, int] = {}
    entries = []
    for aggregate, at_s in drawn:
        versions[aggregate] = versions.get(aggregate, 0) + 1
        entries.append(entry(f"o-{aggregate}", versions[aggregate], at_s=at_s))
    random.shuffle(entries)  # type: ignore[attr-defined]
    found = names(arrange(entries, {}))
    assert sorted(found) == sorted(one.event_id for one in entries)
    for aggregate, last in versions.items():
        prefix = f"t/o-{aggregate}/"
        own = [name for name in found if name.startswith(prefix)]
        assert own == [f"{prefix}{version}" for version in range(1, last + 1)]

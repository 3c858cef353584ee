"""Grants over Postgres: request ids, batches of accounts of every kind, and whoever comes at the same moment."""

import asyncio
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from services.loyalty.domain.grants import GrantsAsked
from services.loyalty.domain.points import Accrued
from services.loyalty.domain.programme import ExpiryClass
from services.loyalty.servicer.points import PointsServicer
from services.loyalty.store.grants import GrantLedger
from services.runtime.database import Connection, Lane, raw
from services.runtime.errors import DomainError, Invalid
from services.runtime.ids import new_id
from siyu.loyalty.v1 import points_pb2
from tests.store.loyalty.conftest import CURRENCY, PROGRAMME, House, grant


async def test_a_grant_is_posted_once(house: House) -> None:
    """The same request id answers the same; another body is refused."""
    member = new_id()
    first = await house.grant(member, 100, request_id="r1")
    again = await house.grant(member, 100, request_id="r1")
    assert again == first
    assert first.available_points == 100
    with pytest.raises(DomainError, match="another body") as refused:
        await house.grant(member, 50, request_id="r1", fingerprint=b"other")
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert await house.balance(member) == (100, 0, 0, 0)
    assert await house.audit() == {}


async def test_the_first_reply_stands_whatever_the_programme_says_since(house: House) -> None:
    """A request that was posted is answered as before, though its class is gone; a new one is refused."""
    member = new_id()
    first = await house.grant(member, 10, expiry_class="bonus", request_id="r1")
    await house.advance(seconds=1)
    await house.publish(
        replace(PROGRAMME, expiry_classes=PROGRAMME.expiry_classes[:1], earn_rules=PROGRAMME.earn_rules[:1])
    )
    house.points.book.forget(house.tenant_id, CURRENCY)
    asked = [
        grant(member, 10, expiry_class="bonus", request_id=name, fingerprint=body)
        for name, body in (("r1", b"grant"), ("r2", b"grant"), ("r1", b"other"))
    ]
    assert await house.grant(member, 10, expiry_class="bonus", request_id="r1") == first
    again, refused, reused = await house.grant_all(asked)
    assert again == first
    assert [verdict.reason for verdict in (refused, reused) if isinstance(verdict, DomainError)] == [
        "EXPIRY_CLASS_NOT_FOUND",
        "REQUEST_ID_REUSED",
    ]


async def test_a_refused_grant_stays_refused_for_a_day(house: House) -> None:
    """A duplicate that comes when the programme has the class is told no as the first was, whichever way it comes."""
    member = new_id()
    with pytest.raises(DomainError) as refused:
        await house.grant(member, 10, expiry_class="spring", request_id="r1")
    refusals = await house.grant_all(
        [
            grant(member, 10, expiry_class="spring", request_id="r2"),
            grant(member, 10, point_currency="stars", request_id="r3"),
            grant(member, 10, occurred_at=house.now + timedelta(hours=1), request_id="r4"),
        ],
    )
    assert [said.reason for said in refusals if isinstance(said, DomainError)] == [
        "EXPIRY_CLASS_NOT_FOUND",
        "PROGRAMME_NOT_FOUND",
        "INVALID_FIELD",
    ]
    await house.advance(hours=1)
    classes = (*PROGRAMME.expiry_classes, ExpiryClass(class_id="spring", days=90))
    await house.publish(replace(PROGRAMME, expiry_classes=classes))
    await house.publish(replace(PROGRAMME, expiry_classes=classes, point_currency="stars"))
    house.points.book.forget(house.tenant_id, CURRENCY)

    with pytest.raises(DomainError) as again:
        await house.grant(member, 10, expiry_class="spring", request_id="r1")
    assert (again.value.reason, again.value.message) == (refused.value.reason, refused.value.message)
    with pytest.raises(DomainError) as reused:
        await house.grant(member, 10, expiry_class="spring", request_id="r1", fingerprint=b"other")
    assert reused.value.reason == "REQUEST_ID_REUSED"
    # beside one that is new, one that was refused for its form, and for another client
    verdicts = await house.grant_all(
        [
            grant(member, 1, expiry_class="spring", request_id="new"),
            grant(member, 10, expiry_class="spring", request_id="r2"),
            grant(member, 10, point_currency="stars", request_id="r3"),
            grant(member, 10, occurred_at=house.now, request_id="r4"),
        ],
    )
    assert [said.reason if isinstance(said, DomainError) else "" for said in verdicts] == [
        "",
        "EXPIRY_CLASS_NOT_FOUND",
        "PROGRAMME_NOT_FOUND",
        "",
    ]
    assert await house.balance(member) == (11, 0, 0, 0)
    other = await house.points.accrue(
        house.call(client_id="till-2"), grant(member, 2, expiry_class="spring", request_id="r1")
    )
    assert other.available_points == 13

    house.clock.advance(timedelta(days=2000))
    await house.sweeper.forget()
    assert (await house.grant(member, 10, expiry_class="spring", request_id="r1")).available_points == 23
    assert await house.audit() == {}


async def test_a_round_forgets_all_refusals_whose_day_is_over(house: House) -> None:
    """However many: what a round left would add up where more are refused than it takes."""

    async def refuse(connection: Connection) -> None:
        await raw(connection).execute(
            """
            INSERT INTO point_requests (tenant_id, client_id, family, request_id, fingerprint, refusal)
            SELECT $1::uuid, 'till-1', 'loyalty.holds', n::text, '', 'INSUFFICIENT_POINTS'
            FROM generate_series(1, 2500) AS n
            """,
            house.tenant_id,
        )

    async def left(connection: Connection) -> int:
        count: int = await raw(connection).fetchval("SELECT count(*) FROM point_requests")
        return count

    await house.system.run(house.tenant_id, refuse)
    house.clock.advance(timedelta(days=2000))
    await house.sweeper.forget()
    assert await house.system.read(house.tenant_id, left) == 0


async def test_a_storm_of_duplicates_posts_once(house: House) -> None:
    """Duplicates in one batch and over lanes share the verdict."""
    member = new_id()
    verdicts = await asyncio.gather(*(house.grant(member, 7, request_id=f"r{i % 10}") for i in range(300)))
    assert len({verdict.entry_id for verdict in verdicts}) == 10
    assert await house.balance(member) == (70, 0, 0, 0)


async def test_a_bundle_gives_each_item_its_verdict(house: House) -> None:
    """What is refused does not fail its neighbours."""
    member = new_id()
    asked = [grant(member, 10), grant(member, 10, expiry_class="unknown"), grant(member, 10, point_currency="other")]
    verdicts = await house.grant_all(asked)
    reasons = [verdict.reason if isinstance(verdict, DomainError) else "" for verdict in verdicts]
    assert reasons == ["", "EXPIRY_CLASS_NOT_FOUND", "PROGRAMME_NOT_FOUND"]


async def test_a_bundle_posts_as_its_items_one_by_one(house: House) -> None:
    """Several items an account, two classes, repeats of before and within: verdicts, lots and books agree."""
    chance = random.Random(7)
    members, others = [new_id() for _ in range(6)], [new_id() for _ in range(6)]
    twins = dict(zip(members, others, strict=True))
    # one has no account yet, one no pool of the bonus class, one has spent all that it had
    for member in (*members[1:], *others[1:]):
        await house.grant(member, 5)
    for member in (members[5], others[5]):
        await house.resolve((await house.hold(member, 5)).hold_id)
    plan = [
        (chance.choice(members), chance.randrange(1, 9), chance.choice(["year", "bonus"]), f"r{chance.randrange(60)}")
        for _ in range(80)
    ]
    by_request = {request_id: (member, points, of) for member, points, of, request_id in reversed(plan)}
    plan = [(*by_request[request_id], request_id) for _, _, _, request_id in plan]
    await house.grant(plan[3][0], plan[3][1], expiry_class=plan[3][2], request_id=plan[3][3])
    await house.grant(twins[plan[3][0]], plan[3][1], expiry_class=plan[3][2], request_id=f"twin-{plan[3][3]}")

    asked = [grant(member, points, expiry_class=of, request_id=name) for member, points, of, name in plan]
    together = await house.grant_all(asked)
    singly = [
        await house.grant(twins[member], points, expiry_class=of, request_id=f"twin-{name}")
        for member, points, of, name in plan
    ]

    left = [verdict.available_points for verdict in together if not isinstance(verdict, DomainError)]
    assert left == [verdict.available_points for verdict in singly]
    for member, twin in twins.items():
        assert await house.balance(member) == await house.balance(twin)
        assert await _lots(house, member) == await _lots(house, twin)
    assert await house.audit() == {}


async def test_a_batch_that_waits_for_an_account_adds_to_what_it_waited_for(house: House) -> None:
    """What another transaction did to the account meanwhile is kept: rows are updated as they are after the lock."""
    member, other = new_id(), new_id()
    await house.grant(member, 100)
    held, waiting = asyncio.Event(), asyncio.Event()

    async def work(connection: Connection) -> None:
        await raw(connection).execute(
            "UPDATE accounts SET account_version = account_version WHERE member_id = $1::uuid", member
        )
        held.set()
        await waiting.wait()
        # as long as the batch below needs to run into the lock
        await asyncio.sleep(0.2)

    holder = asyncio.create_task(house.database.run(house.tenant_id, work))
    await held.wait()
    posting = asyncio.create_task(house.grant_all([grant(member, 1), grant(other, 2)]))
    waiting.set()
    verdicts = await posting
    await holder
    assert [verdict.available_points for verdict in verdicts if not isinstance(verdict, DomainError)] == [101, 2]
    assert await house.balance(member) == (101, 0, 0, 0)
    assert await house.audit() == {}


async def _lots(house: House, member_id: str) -> list[tuple[object, ...]]:
    async def work(connection: Connection) -> list[tuple[object, ...]]:
        rows = await raw(connection).fetch(
            """
            SELECT e.class_no, e.end_points, e.account_version, e.points, e.expires_at, p.earned_points,
                   p.last_expires_at, p.next_expires_at, a.account_version AS versions, a.due_at
            FROM entries e
            JOIN whole_pools p USING (tenant_id, member_id, class_no)
            JOIN accounts a ON a.tenant_id = e.tenant_id AND a.member_id = e.member_id
            WHERE e.member_id = $1::uuid
            ORDER BY e.account_version
            """,
            member_id,
        )
        return [tuple(row) for row in rows]

    return await house.database.read(house.tenant_id, work)


async def test_a_member_written_in_two_ways_is_one_member(house: House) -> None:
    """An id may come in capitals; grants to both spellings in one batch both count."""
    servicer = PointsServicer(desk=house.points, clock=house.clock)
    member = new_id()
    await house.grant(member, 5)
    request = points_pb2.BatchAccrueRequest()
    for name, points in ((member, 10), (member.upper(), 20)):
        request.items.add(
            request_id=new_id(), member_id=name, point_currency=CURRENCY, points=points, reason="goodwill"
        )
    reply = await servicer.batch_accrue(request, house.call())
    assert [verdict.accrued.available_points for verdict in reply.verdicts] == [15, 35]
    asked = points_pb2.GetBalanceRequest(member_id=member.upper(), point_currency=CURRENCY)
    assert (await servicer.get_balance(asked, house.call())).available_points == 35
    assert await house.audit() == {}


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(datetime(1, 1, 1, tzinfo=UTC), id="the first year"),
        pytest.param(datetime(2000, 1, 1, tzinfo=UTC) - timedelta(microseconds=1), id="before the year 2000"),
    ],
)
async def test_a_time_that_no_calendar_has_is_refused_and_fails_no_neighbour(house: House, at: datetime) -> None:
    """West of Greenwich the first day of the first year has no local day."""
    servicer = PointsServicer(desk=house.points, clock=house.clock)
    call = house.call(time_zone="America/New_York")
    member = new_id()
    told, refused = await house.grant_all([grant(member, 5), grant(member, 7, occurred_at=at)], call)
    assert not isinstance(told, DomainError)
    assert isinstance(refused, Invalid)
    assert await house.balance(member) == (5, 0, 0, 0)
    quote = points_pb2.QuotePointsRequest(member_id=member, point_currency=CURRENCY)
    quote.lines.add(line_id="1", quantity=1, accrual_base_minor=1_000)
    for moment in (at, datetime(9999, 12, 31, tzinfo=UTC)):
        quote.occurred_at.FromDatetime(moment)
        with pytest.raises(Invalid):
            await servicer.quote_points(quote, call)


STARS = "stars"


async def test_a_batch_over_accounts_of_every_kind_posts_as_its_items_one_by_one(house: House) -> None:
    """New, plain, of another class, due, owing, merged, merged before it had an account: all in one batch."""
    kinds = {kind: (new_id(), new_id()) for kind in ("new", "plain", "other class", "due", "owing", "merged", "unseen")}
    survivors = (new_id(), new_id())
    for kind, twins in kinds.items():
        for twin, survivor in zip(twins, survivors, strict=True):
            match kind:
                case "plain" | "merged":
                    await house.grant(twin, 5)
                case "other class" | "due":
                    await house.grant(twin, 6, expiry_class="bonus")
                case "owing":
                    await house.pay(twin, 10_000, offline_burnt_points=140)
                case _:
                    pass
            if kind in ("merged", "unseen"):
                await house.merge(survivor, twin)
    # a currency that is younger than the merge: the alias's account is still to be made, and is its survivor's
    await house.publish(replace(PROGRAMME, point_currency=STARS))
    await house.advance(days=8)
    for twin in kinds["other class"]:
        await house.grant(twin, 3, expiry_class="bonus")

    def asked(place: int) -> list[GrantsAsked]:
        return [
            grant(twins[place], 10 + number, point_currency=STARS if kind == "unseen" else CURRENCY)
            for number, (kind, twins) in enumerate(kinds.items())
        ]

    together = await house.grant_all(asked(0))
    singly = [await house.points.accrue(house.call(), ask) for ask in asked(1)]
    told = [(said.available_points, said.repaid_points) for said in together if isinstance(said, Accrued)]
    assert told == [(said.available_points, said.repaid_points) for said in singly]
    assert told[list(kinds).index("owing")] == (0, 14)
    for twin, other in (*kinds.values(), survivors):
        assert await house.balance(twin) == await house.balance(other)
        assert await _lots(house, twin) == await _lots(house, other)
    assert (
        await house.points.balance(house.call(), member_id=survivors[0], point_currency=STARS)
    ).available_points == 16
    # and once more, over accounts that have tails now
    together = await house.grant_all(asked(0))
    assert [said.available_points for said in together if isinstance(said, Accrued)] == [
        (await house.points.accrue(house.call(), ask)).available_points for ask in asked(1)
    ]
    assert await house.audit() == {}


async def test_a_batch_with_a_known_request_leaves_nothing_of_its_first_try(house: House) -> None:
    """Accounts that were made, and points that were posted, before the known request was found are made once."""
    known, others = new_id(), [new_id() for _ in range(5)]
    first = await house.grant(known, 100, request_id="known")
    await house.grant(others[0], 1)
    asked = [grant(member, 10) for member in others]
    verdicts = await house.grant_all([*asked, grant(known, 100, request_id="known")])
    assert verdicts[-1] == first
    assert [said.available_points for said in verdicts[:-1] if isinstance(said, Accrued)] == [11, 10, 10, 10, 10]
    assert await house.grant_all(asked) == verdicts[:-1]
    assert await house.audit() == {}


async def test_batches_that_overlap_wait_for_each_other(house: House) -> None:
    """Two processes post to the same members at once, some of them new: nothing is lost, and nobody deadlocks."""
    members = [new_id() for _ in range(120)]
    await house.grant_all([grant(member, 1) for member in members[:60]])
    lanes = [await house.database.lane() for _ in range(3)]

    async def post(lane: Lane, number: int) -> None:
        chance = random.Random(number)
        for _ in range(15):
            grants = await house.ready(grant(member, 2) for member in chance.sample(members, 100))
            (granted,) = await GrantLedger(1).post(lane, house.tenant_id, [grants])
            assert not granted.refusals

    await asyncio.gather(*(post(lane, number) for number, lane in enumerate(lanes)))
    total = sum([(await house.balance(member))[0] for member in members])
    assert total == 60 + 3 * 15 * 100 * 2
    assert await house.audit() == {}
    for lane in lanes:
        await lane.close()


@dataclass
class _Watched:
    """A lane of whose statements it is seen whether they post at once, or look first."""

    lane: Lane
    at_once: list[bool] = field(default_factory=list)

    async def fetch(self, statement: str, *parameters: Any) -> Any:
        self.at_once.append(parameters[-1] is None)
        return await self.lane.fetch(statement, *parameters)


async def test_a_tenant_that_repeats_requests_is_looked_up_first_until_it_stops(house: House) -> None:
    """What is posted at once and undone, since some of it was answered before, is paid for twice."""
    known = [grant(new_id(), 1) for _ in range(3)]
    ledger = GrantLedger(1)
    lane = _Watched(await house.database.lane())

    async def posts(*asked: GrantsAsked) -> list[bool]:
        lane.at_once.clear()
        (granted,) = await ledger.post(cast("Lane", lane), house.tenant_id, [await house.ready(asked)])
        assert not granted.refusals
        return list(lane.at_once)

    assert await posts(*known) == [True]
    assert await posts(*known, grant(new_id(), 1)) == [True, False], "posted, and looked up when that failed"
    assert await posts(*known, grant(new_id(), 1)) == [False]
    assert await posts(grant(new_id(), 1), grant(new_id(), 1)) == [False], "looked up in vain, and for the last time"
    twice = grant(new_id(), 1)
    assert await posts(twice, twice) == [False], "that it repeats is seen before it is sent"
    assert await posts(grant(new_id(), 1)) == [True], "what repeats within itself repeats nothing of before"
    assert await house.audit() == {}
    await lane.lane.close()

"""Opens the shops: stores, tills, members, programme, goods and offers, all by batch, each step timed and told."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta

from rich.console import Console

from services.console.demo import rules, seed_goods, seed_offers
from services.console.demo.brand import add_client
from services.console.demo.intake import store_id
from services.console.demo.opening import Opening, OpeningFailed, batches, stamp
from services.console.demo.seed_goods import Sold
from services.runtime.clock import start_of_day
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import member_pb2, member_pb2_grpc, store_pb2, store_pb2_grpc
from siyu.loyalty.v1 import points_pb2, points_pb2_grpc, programme_pb2, programme_pb2_grpc

STORES_A_CALL = 500
MEMBERS_A_CALL = 500
GRANTS_A_CALL = 500
CARD_NUMBERS_FROM = 700_000_000


def card_number(household_id: int) -> str:
    """The household's membership card."""
    return str(CARD_NUMBERS_FROM + household_id)


def late_evening(day: date) -> datetime:
    """A second before the brand's day ends: where the test clock stands while the day is replayed."""
    return start_of_day(day + timedelta(days=1), rules.TIME_ZONE) - timedelta(seconds=1)


async def open_shops(opening: Opening, *, console: Console) -> None:
    """Seeds everything that the replay needs. Repeating it changes nothing: every call carries the same request id."""
    sold = Sold()
    for week in opening.plan.weeks:
        sold.add(opening.plan.baskets(opening.data, week), opening.plan.offline)
    campaigns = seed_offers.running_campaigns(opening)
    first_weeks = [basket for week in opening.plan.weeks[:2] for basket in opening.data.baskets(week)]

    async def promotions() -> int:
        return sum([await seed_offers.put_promotions(opening, week) for week in opening.plan.weeks])

    steps: Sequence[tuple[str, Callable[[], Awaitable[int]]]] = (
        ("stores", lambda: _stores(opening)),
        ("tills and suppliers' clients", lambda: _clients(opening, sold.stores())),
        ("members", lambda: _members(opening)),
        ("programme", lambda: _programme(opening)),
        ("welcome grants", lambda: _welcome(opening)),
        ("suppliers with split rules", lambda: _suppliers(opening)),
        ("products", lambda: seed_goods.put_products(opening)),
        ("list prices", lambda: seed_goods.set_prices(opening, first_weeks)),
        ("stock lines", lambda: seed_goods.receive_stock(opening, sold)),
        ("member prices", promotions),
        ("coupon templates", lambda: seed_offers.put_templates(opening, campaigns)),
        ("coupons", lambda: seed_offers.issue_coupons(opening, campaigns)),
    )
    for title, step in steps:
        started = time.monotonic()
        count = await step()
        console.print(f"seeded {count:>7,} {title} in {time.monotonic() - started:.1f} s", soft_wrap=True)


async def _stores(opening: Opening) -> int:
    stub = opening.wire.stub(store_pb2_grpc.StoreServiceStub)
    numbers = opening.data.store_ids()
    for batch in batches(numbers, STORES_A_CALL):
        await opening.call(
            stub.BatchUpsertStores,
            store_pb2.BatchUpsertStoresRequest(
                request_id=f"stores-{batch[0]}",
                stores=[
                    store_pb2.Store(store_id=store_id(number), display_name=f"Store {number}", active=True)
                    for number in batch
                ],
            ),
        )
    return len(numbers)


async def _clients(opening: Opening, stores: Sequence[int]) -> int:
    async def till(number: int) -> None:
        name = store_id(number)
        await add_client(
            opening.wire, opening.brand, opening.admin, name=name, kind=rule_pb2.ACTOR_KIND_POS, store_id=name
        )

    await opening.each(stores, till)
    for supplier in rules.SUPPLIERS:
        await add_client(
            opening.wire,
            opening.brand,
            opening.admin,
            name=supplier.supplier_id,
            kind=rule_pb2.ACTOR_KIND_SUPPLIER,
            supplier_id=supplier.supplier_id,
        )
    return len(stores) + len(rules.SUPPLIERS)


async def _members(opening: Opening) -> int:
    stub = opening.wire.stub(member_pb2_grpc.MemberServiceStub)
    households = [number for number in opening.data.household_ids() if opening.plan.takes(number)]

    async def register(batch: Sequence[int]) -> None:
        reply = await opening.call(
            stub.BatchRegisterMembers,
            member_pb2.BatchRegisterMembersRequest(requests=[_registration(household) for household in batch]),
        )
        for household, result in zip(batch, reply.results, strict=True):
            if result.refusal_reason:
                raise OpeningFailed(f"household {household} is refused: {result.refusal_reason}")
            opening.brand.members[household] = result.member.member_id

    await opening.each(batches(households, MEMBERS_A_CALL), register)
    return len(households)


def _registration(household: int) -> member_pb2.RegisterMemberRequest:
    card = member_pb2.Identifier(type=member_pb2.IDENTIFIER_TYPE_CARD, value=card_number(household))
    return member_pb2.RegisterMemberRequest(
        request_id=f"household-{household}",
        identifiers=[card],
        display_name=f"Household {household}",
        sign_up_channel="pos",
    )


async def _programme(opening: Opening) -> int:
    stub = opening.wire.stub(programme_pb2_grpc.ProgrammeServiceStub)
    programme = programme_pb2.Programme(
        point_currency=rules.POINT_CURRENCY,
        display_name=f"{rules.BRAND_NAME} points",
        rounding=programme_pb2.ROUNDING_DOWN,
        return_window_days=rules.RETURN_WINDOW_DAYS,
        grace_days=rules.GRACE_DAYS,
        tender_value_minor=rules.TENDER_VALUE_CENTS,
        points_per_value=rules.TENDER_POINTS,
        expiry_classes=[
            programme_pb2.ExpiryClass(class_id=rules.BASE_CLASS, days=rules.BASE_CLASS_DAYS),
            programme_pb2.ExpiryClass(class_id=rules.BONUS_CLASS, days=rules.BONUS_CLASS_DAYS),
        ],
        earn_rules=[
            programme_pb2.EarnRule(
                rule_id=earning.rule_id,
                points=earning.points,
                per_minor=earning.per_cents,
                expiry_class=earning.expiry_class,
                categories=earning.departments,
                weekdays=earning.weekdays,
                tier_multiplied=earning.tier_multiplied,
                funder=earning.funder,
            )
            for earning in rules.EARNINGS
        ],
        tiers=[
            programme_pb2.Tier(
                tier_id=tier.tier_id,
                display_name=tier.name,
                multiplier=tier.multiplier,
                amount_minor=tier.amount_cents,
            )
            for tier in rules.TIERS
        ],
        tier_window=programme_pb2.TierWindow(rolling_days=rules.TIER_WINDOW_DAYS, grace_days=rules.TIER_GRACE_DAYS),
    )
    await opening.call(
        stub.PublishProgramme, programme_pb2.PublishProgrammeRequest(request_id="programme-1", programme=programme)
    )
    return 1


async def _welcome(opening: Opening) -> int:
    stub = opening.wire.stub(points_pb2_grpc.PointsServiceStub)
    eve = stamp(late_evening(date.fromisoformat(opening.plan.first_day) - timedelta(days=1)))

    async def grant(batch: Sequence[tuple[int, str]]) -> None:
        reply = await opening.call(
            stub.BatchAccrue,
            points_pb2.BatchAccrueRequest(
                items=[
                    points_pb2.AccrueRequest(
                        request_id=f"welcome-{household}",
                        member_id=member,
                        point_currency=rules.POINT_CURRENCY,
                        points=rules.WELCOME_POINTS,
                        expiry_class=rules.BONUS_CLASS,
                        reason=rules.WELCOME,
                        occurred_at=eve,
                    )
                    for household, member in batch
                ]
            ),
        )
        refused = {verdict.refusal_reason for verdict in reply.verdicts if verdict.refusal_reason}
        if refused:
            raise OpeningFailed(f"welcome points are refused: {', '.join(sorted(refused))}")

    members = sorted(opening.brand.members.items())
    await opening.each(batches(members, GRANTS_A_CALL), grant)
    return len(members)


async def _suppliers(opening: Opening) -> int:
    await seed_goods.put_suppliers(opening)
    return len(rules.SUPPLIERS)

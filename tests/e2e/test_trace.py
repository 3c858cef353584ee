"""One trace over gRPC, database and streams: a sale is followed from the till to the points that it earns."""

from collections.abc import Iterator

from services.console.stack.local import LocalStack
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2_grpc
from tests.e2e.collector import Collector, Span
from tests.e2e.shop import FLOWERS, TEA, Shop, eventually, open_shop


async def test_a_sale_is_one_trace_from_the_till_to_its_points(stack: LocalStack, collector: Collector) -> None:
    shop = await open_shop(stack)
    trace_id, till_span = new_id().replace("-", ""), new_id().replace("-", "")[-16:]
    spans = await traced_sale(shop, collector, trace_id, till_span)
    by_id = {span.span_id: span for span in spans}
    (sale,) = [span for span in spans if span.name == "PosService/Sell"]
    assert (sale.service, sale.kind, sale.parent_id) == ("commerce", "server", till_span)
    assert {span.parent_id for span in spans} - {till_span} <= set(by_id), "every span hangs below another"
    for service, call in (
        ("campaign", "QuoteService/Quote"),
        ("loyalty", "PointsService/HoldPoints"),
        ("loyalty", "PointsService/CaptureHold"),
    ):
        (served,) = [span for span in spans if span.name == call]
        asked = by_id[served.parent_id]
        assert (served.service, served.kind) == (service, "server")
        assert (asked.service, asked.kind) == ("commerce", "client")
        assert sale in list(above(asked, by_id))
    for service, queue in (("loyalty", "accrual"), ("campaign", "usage"), ("commerce", "fulfilment")):
        (consumed, *_) = [span for span in spans if span.name == f"{service}.{queue} consume"]
        assert (consumed.service, consumed.kind) == (service, "consumer")
        assert sale in list(above(consumed, by_id)), "what follows by event hangs below the call that caused it"
        assert any(consumed in above(span, by_id) for span in spans if span.name == f"{service} transaction")
    (hold,) = [span for span in spans if span.name == "PointsService/HoldPoints"]
    assert any(hold in above(span, by_id) for span in spans if "hold_points" in span.statement), "batches too"
    statements = {(span.service, span.statement.split()[0]) for span in spans if span.statement}
    assert {("commerce", "INSERT"), ("loyalty", "UPDATE"), ("campaign", "SELECT")} <= statements
    await shop.wire.close()


async def traced_sale(shop: Shop, collector: Collector, trace_id: str, till_span: str) -> list[Span]:
    """Sells with everything on, as a till that samples the call, and waits for what follows."""
    member_id = await shop.member(points=500)
    sale = shop.sale(shop.basket((TEA, 1), (FLOWERS, 1), member_id=member_id, burn_points=100))
    token = await shop.wire.token(shop.till)
    reply = await shop.wire.stub(order_pb2_grpc.PosServiceStub).Sell(
        sale,
        timeout=20,
        metadata=(("authorization", f"Bearer {token}"), ("traceparent", f"00-{trace_id}-{till_span}-01")),
    )
    await shop.settled(reply.order.order_id)

    async def all_there() -> list[Span]:
        found = collector.trace(trace_id)
        ended = {span.name for span in found}
        wanted = {"PosService/Sell", "loyalty.accrual consume", "campaign.usage consume", "commerce.fulfilment consume"}
        return found if wanted <= ended and {span.parent_id for span in found} <= {
            till_span, *(span.span_id for span in found),
        } else []  # fmt: skip

    return await eventually(all_there)  # type: ignore[return-value]


def above(span: Span, by_id: dict[str, Span]) -> Iterator[Span]:
    """What a span hangs below, the nearest first."""
    while (parent := by_id.get(span.parent_id)) is not None:
        yield parent
        span = parent


async def test_a_call_that_nobody_samples_leaves_no_span(stack: LocalStack, collector: Collector) -> None:
    shop = await open_shop(stack)
    trace_id = new_id().replace("-", "")
    token = await shop.wire.token(shop.till)
    await shop.wire.stub(order_pb2_grpc.PosServiceStub).Sell(
        shop.sale(shop.basket((TEA, 1))),
        timeout=20,
        metadata=(("authorization", f"Bearer {token}"), ("traceparent", f"00-{trace_id}-{'ab' * 8}-00")),
    )
    assert collector.trace(trace_id) == []
    await shop.wire.close()

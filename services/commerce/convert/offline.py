"""Off-line sales and their verdicts."""

from services.commerce.convert.orders import exception_message, order_message, till_sale
from services.commerce.usecases.offline import OfflineSale, Recorded
from services.runtime.errors import DomainError, Invalid
from siyu.commerce.v1 import order_pb2


def offline_sale(message: order_pb2.OfflineSale) -> OfflineSale:
    """A sale with what the till charged."""
    return OfflineSale(sale=till_sale(message.sale), charged_minor=tuple(message.charged_minor))


def recorded_reply(recorded: Recorded) -> bytes:
    """The stored verdict of a recorded sale."""
    return order_pb2.OfflineVerdict(
        order=order_message(recorded.order),
        exceptions=[exception_message(exception) for exception in recorded.exceptions],
    ).SerializeToString()


def verdict(reply: bytes, *, duplicate: bool) -> order_pb2.OfflineVerdict:
    """The verdict; `duplicate` tells that the sale was recorded before."""
    message = order_pb2.OfflineVerdict.FromString(reply)
    message.duplicate = duplicate
    return message


def refused(refusal: DomainError) -> order_pb2.OfflineVerdict:
    """The verdict of a sale that is not recorded; of what is malformed its words name the field."""
    message = refusal.message
    if isinstance(refusal, Invalid):
        message = "; ".join(f"{path}: {why}" for path, why in refusal.violations)
    return order_pb2.OfflineVerdict(refusal_reason=refusal.reason, refusal_message=message)

"""What a caller reads of a field that breaks the contract's rules."""

import pytest

from services.runtime.errors import Invalid
from services.runtime.server import check_valid
from siyu.commerce.v1 import catalogue_pb2, order_pb2
from siyu.identity.v1 import client_pb2, tenant_pb2

TENDERS = "TENDER_CASH, TENDER_CARD, TENDER_WECHAT_PAY, TENDER_ALIPAY, TENDER_OTHER"


def payment(**fields) -> order_pb2.SellRequest:
    return order_pb2.SellRequest(sale=order_pb2.Sale(payments=[order_pb2.Payment(**fields)]))


@pytest.mark.parametrize(
    ("request_", "field", "why"),
    [
        pytest.param(order_pb2.SellRequest(), "sale", "is required", id="a message that is absent"),
        pytest.param(order_pb2.SellRequest(), "request_id", "is required", id="a text that two rules want"),
        pytest.param(tenant_pb2.CreateTenantRequest(), "code", "is required", id="a text that a pattern wants"),
        pytest.param(
            tenant_pb2.CreateTenantRequest(code=" "),
            "code",
            "must be 1 to 64 characters of A-Z, a-z, 0-9, '.', '_', '-'",
            id="a text that is wrong",
        ),
        pytest.param(
            client_pb2.CreateClientRequest(scopes=["loyalty.read", "Loyalty"]),
            "scopes[1]",
            "must be 2 to 4 words of a-z with '.' between them; '_' may stand in all but the first",
            id="an item of a list that is wrong",
        ),
        pytest.param(order_pb2.GetOrderRequest(), "order_id", "is required", id="an id that is absent"),
        pytest.param(payment(), "sale.payments[0].tender", "is required: one of {tenders}", id="a choice not made"),
        pytest.param(payment(tender=77), "sale.payments[0].tender", "must be one of {tenders}", id="no such choice"),
        pytest.param(payment(tender=5), "sale.payments[0].tender", "must be one of {tenders}", id="a choice not here"),
        pytest.param(
            catalogue_pb2.PostDocumentRequest(kind=99),
            "kind",
            "must be one of STOCK_DOCUMENT_KIND_RECEIPT, STOCK_DOCUMENT_KIND_COUNT, STOCK_DOCUMENT_KIND_ADJUSTMENT",
            id="no choice of a rule's own list",
        ),
        pytest.param(
            catalogue_pb2.BatchUpsertProductsRequest(products=[catalogue_pb2.Product(base_unit=99)]),
            "products[0].base_unit",
            "must be one of BASE_UNIT_PIECE, BASE_UNIT_GRAM, BASE_UNIT_MILLILITRE",
            id="no choice where none need be made",
        ),
    ],
)
def test_a_violation_says_what_to_send(request_, field, why) -> None:
    with pytest.raises(Invalid) as refused:
        check_valid(request_)
    assert [told for at, told in refused.value.violations if at == field] == [why.replace("{tenders}", TENDERS)]

"""commerce's tables by what they are, and the constraints that speak; the migrations hold their columns."""

from typing import Final

SERVICE: Final = "commerce"

LEDGERS: Final = (
    "order_discounts",
    "refunds",
    "refund_lines",
    "stock_documents",
    "stock_lines",
    "split_rules",
    "settlement_entries",
    "parcels",
    "sale_exceptions",
)
"""Append-only: neither role may change or delete a row."""

STATES: Final = (
    "member_aliases",
    "products",
    "prices",
    "stock",
    "stock_holds",
    "suppliers",
    "orders",
    "order_lines",
    "order_payments",
    "order_steps",
    "supplier_orders",
    "supplier_order_lines",
)
"""Rows that change; what they count is audited against the ledgers."""

TABLES: Final = (*STATES, *LEDGERS)

ORDERS_KEY: Final = "orders_key"
ORDERS_TILL_SALE: Final = "orders_till_sale"
"""A till's sale number is used once; an attempt that was cancelled gives it back."""

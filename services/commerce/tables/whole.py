"""The whole schema: every table, and which of them are ledgers."""

from typing import Final

from sqlalchemy import MetaData

from services.commerce.tables import columns, exceptions, followed, goods, orders, settlement, suppliers

ROOMS: Final = (exceptions, followed, goods, orders, settlement, suppliers)
SCHEMA: Final[MetaData] = columns.metadata
"""All tables of the rooms, each of which adds its own when it is imported."""

LEDGERS: Final = tuple(
    table.name
    for table in (
        orders.order_discounts,
        orders.refunds,
        orders.refund_lines,
        goods.stock_documents,
        goods.stock_lines,
        settlement.split_rules,
        settlement.settlement_entries,
        suppliers.parcels,
        suppliers.parcel_deliveries,
        settlement.statements,
        settlement.statement_lines,
        settlement.payouts,
        exceptions.sale_exceptions,
        exceptions.exception_resolutions,
    )
)
"""Append-only: neither role may change or delete a row. All other tables are audited against these."""

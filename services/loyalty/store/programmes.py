"""Programmes: append-only versions, read often and cached by the use case."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.loyalty.domain.programme import (
    EarnRule,
    ExpiryClass,
    Programme,
    Rounding,
    Tier,
    TierWindow,
    Version,
)
from services.runtime.database import Connection, raw

_VERSIONS = """
    SELECT programme_version, effective_at, body
    FROM programmes
    WHERE tenant_id = $1::uuid AND point_currency = $2
    ORDER BY programme_version
"""
# versions of one programme follow each other: the lock makes publishers take turns
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('programmes:' || $1 || ':' || $2, 0))"
_PUBLISH = """
    INSERT INTO programmes (tenant_id, point_currency, programme_version, effective_at, grace_days, debt_forbidden,
                            body)
    SELECT $1::uuid, $2, coalesce(max(programme_version), 0) + 1, $3, $4, $5, $6::jsonb
    FROM programmes
    WHERE tenant_id = $1::uuid AND point_currency = $2
    RETURNING programme_version
"""


async def versions(connection: Connection, tenant_id: str, point_currency: str) -> tuple[Version, ...]:
    """All versions of a programme, oldest first."""
    rows = await raw(connection).fetch(_VERSIONS, tenant_id, point_currency)
    return tuple(
        Version(number=row["programme_version"], effective_at=row["effective_at"], programme=_programme(row["body"]))
        for row in rows
    )


async def publish(connection: Connection, tenant_id: str, programme: Programme, *, effective_at: datetime) -> int:
    """Stores the next version and returns its number."""
    driver = raw(connection)
    await driver.execute(_LOCK, tenant_id, programme.point_currency)
    number: int = await driver.fetchval(
        _PUBLISH,
        tenant_id,
        programme.point_currency,
        effective_at,
        programme.grace_days,
        programme.debt_forbidden,
        json.dumps(_body(programme)),
    )
    return number


def _body(programme: Programme) -> dict[str, Any]:
    window = programme.tier_window
    return {
        "point_currency": programme.point_currency,
        "display_name": programme.display_name,
        "rounding": programme.rounding.value,
        "return_window_days": programme.return_window_days,
        "grace_days": programme.grace_days,
        "debt_forbidden": programme.debt_forbidden,
        "tender_value_minor": programme.tender_value_minor,
        "points_per_value": programme.points_per_value,
        "expiry_classes": [
            {"class_id": each.class_id, "days": each.days, "end_of_year_after": each.end_of_year_after}
            for each in programme.expiry_classes
        ],
        "earn_rules": [
            {
                "rule_id": rule.rule_id,
                "points": str(rule.points),
                "per_minor": rule.per_minor,
                "expiry_class": rule.expiry_class,
                "funder": rule.funder,
                "categories": sorted(rule.categories),
                "weekdays": sorted(rule.weekdays),
                "tier_multiplied": rule.tier_multiplied,
                "valid_from": _said(rule.valid_from),
                "valid_until": _said(rule.valid_until),
            }
            for rule in programme.earn_rules
        ],
        "tiers": [
            {
                "tier_id": tier.tier_id,
                "display_name": tier.display_name,
                "multiplier": str(tier.multiplier),
                "amount_minor": tier.amount_minor,
                "orders": tier.orders,
                "activity": tier.activity,
                "any_criterion": tier.any_criterion,
            }
            for tier in programme.tiers
        ],
        "tier_window": {
            "rolling_days": window.rolling_days,
            "grace_days": window.grace_days,
            "step_down": window.step_down,
        },
    }


def _programme(body: dict[str, Any]) -> Programme:
    return Programme(
        point_currency=body["point_currency"],
        display_name=body["display_name"],
        rounding=Rounding(body["rounding"]),
        return_window_days=body["return_window_days"],
        grace_days=body["grace_days"],
        debt_forbidden=body["debt_forbidden"],
        tender_value_minor=body["tender_value_minor"],
        points_per_value=body["points_per_value"],
        expiry_classes=tuple(ExpiryClass(**each) for each in body["expiry_classes"]),
        earn_rules=tuple(_rule(each) for each in body["earn_rules"]),
        tiers=tuple(Tier(**(each | {"multiplier": Decimal(each["multiplier"])})) for each in body["tiers"]),
        tier_window=TierWindow(**body["tier_window"]),
    )


def _rule(body: dict[str, Any]) -> EarnRule:
    return EarnRule(
        **(
            body
            | {
                "points": Decimal(body["points"]),
                "categories": frozenset(body["categories"]),
                "weekdays": frozenset(body["weekdays"]),
                "valid_from": _heard(body["valid_from"]),
                "valid_until": _heard(body["valid_until"]),
            }
        )
    )


def _said(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _heard(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

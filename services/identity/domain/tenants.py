"""Tenants (brands) and their test clocks."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import phonenumbers

from services.identity.domain import currencies
from services.identity.domain.identifiers import DEFAULT_REGION
from services.identity.domain.refusals import ClockBackwards, NoTestClock
from services.runtime.clock import DEFAULT_TIME_ZONE
from services.runtime.errors import Invalid
from services.runtime.ids import TenantId

DEFAULT_CURRENCY: Final = "CNY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A brand. `test_clock_at` is None on machine time; `created_at` is machine time."""

    tenant_id: TenantId
    code: str
    display_name: str
    time_zone: str
    currency_code: str
    region_code: str
    test_clock_at: datetime | None
    created_at: datetime
    version: int


def new_tenant(
    tenant_id: TenantId,
    *,
    code: str,
    display_name: str,
    time_zone: str,
    currency_code: str,
    region_code: str,
    test_clock_at: datetime | None,
    now: datetime,
) -> Tenant:
    """A tenant with its defaults filled in. Raises Invalid for a time zone, currency or region that does not exist."""
    zone = time_zone or DEFAULT_TIME_ZONE
    region = region_code or DEFAULT_REGION
    check_time_zone(zone)
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise Invalid(f"no region {region!r}; ISO 3166-1 has two capitals", field="region_code")
    currency = currency_code or DEFAULT_CURRENCY
    if currency not in currencies.ACTIVE:
        raise Invalid(f"no currency {currency!r}; use an active code of ISO 4217, such as CNY", field="currency_code")
    return Tenant(
        tenant_id=tenant_id,
        code=code,
        display_name=display_name,
        time_zone=zone,
        currency_code=currency,
        region_code=region,
        test_clock_at=test_clock_at,
        created_at=now,
        version=1,
    )


def advanced(tenant: Tenant, to: datetime) -> Tenant:
    """The tenant with its clock at `to`; the same one if it stands there already.

    Raises NoTestClock on machine time, ClockBackwards for an earlier time.
    """
    if tenant.test_clock_at is None:
        raise NoTestClock
    if to < tenant.test_clock_at:
        raise ClockBackwards(tenant.test_clock_at.isoformat())
    if to == tenant.test_clock_at:
        return tenant
    return replace(tenant, test_clock_at=to, version=tenant.version + 1)


def check_time_zone(name: str, *, field: str = "time_zone") -> None:
    """Raises Invalid unless `name` is an IANA time zone."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Invalid(f"no time zone {name!r}; use an IANA name such as Asia/Shanghai", field=field) from error

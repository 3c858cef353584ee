"""What identity tells the other services."""

from dataclasses import dataclass
from datetime import datetime

from services.identity.domain.identifiers import IdentifierType
from services.identity.domain.stores import Store
from services.runtime.ids import MemberId, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChanged:
    """A tenant was made or changed, or its test clock moved."""

    tenant_id: TenantId
    time_zone: str
    currency_code: str
    test_clock_at: datetime | None
    changed_at: datetime
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreChanged:
    """A store was made or changed."""

    tenant_id: TenantId
    store: Store
    changed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRegistered:
    """A member signed up, with identifiers of these types."""

    member_id: MemberId
    channel: str
    store_id: str
    signed_up_at: datetime
    identifier_types: tuple[IdentifierType, ...]
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifierLinked:
    """A further identifier was linked to a member."""

    member_id: MemberId
    identifier_type: IdentifierType
    linked_at: datetime
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberMerged:
    """Two members became one; `version` is the survivor's."""

    merge_id: str
    member_id: MemberId
    merged_member_id: MemberId
    merged_at: datetime
    version: int


Event = TenantChanged | StoreChanged | MemberRegistered | IdentifierLinked | MemberMerged

"""identity's tables: what its migrations have made. A test compares the two.

Personal values are `bytea`: sealed with the member's own key (see `domain.sealing`).
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData()

_NOW = text("clock_timestamp()")


def _instant(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=_NOW if now else None)


tenants = Table(
    "tenants",
    metadata,
    # the first five columns are the runtime's projection of tenants; here it is the truth itself
    Column("tenant_id", UUID(as_uuid=False), primary_key=True),
    Column("time_zone", Text, nullable=False),
    Column("currency_code", Text, nullable=False),
    _instant("test_clock_at", nullable=True),
    Column("version", BigInteger, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("code", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("region_code", Text, nullable=False),
    _instant("created_at"),
    UniqueConstraint("code", name="tenants_code"),
    CheckConstraint("currency_code ~ '^[A-Z]{3}$'", name="tenants_currency"),
)

stores = Table(
    "stores",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("store_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    _instant("created_at", now=True),
    _instant("updated_at", now=True),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    PrimaryKeyConstraint("tenant_id", "store_id", name="stores_key"),
)

clients = Table(
    "clients",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("client_id", UUID(as_uuid=False), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("store_id", Text),
    Column("supplier_id", Text),
    Column("verifier", LargeBinary, nullable=False),
    _instant("created_at"),
    _instant("revoked_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", "client_id", name="clients_key"),
    # a token is asked for by the client's id alone
    UniqueConstraint("client_id", name="clients_id"),
    ForeignKeyConstraint(["tenant_id", "store_id"], ["stores.tenant_id", "stores.store_id"], name="clients_store"),
    CheckConstraint("kind IN ('pos', 'backend', 'supplier', 'partner', 'staff')", name="clients_kind"),
    CheckConstraint("kind <> 'pos' OR store_id IS NOT NULL", name="clients_pos_has_store"),
    CheckConstraint("(kind = 'supplier') = (supplier_id IS NOT NULL)", name="clients_supplier"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    # the installation's and no tenant's; the private half is sealed
    Column("kid", Text, primary_key=True),
    Column("sealed_private", LargeBinary, nullable=False),
    Column("public_x", Text, nullable=False),
    Column("public_y", Text, nullable=False),
    _instant("signs_from"),
    _instant("created_at", now=True),
)

members = Table(
    "members",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("member_id", UUID(as_uuid=False), nullable=False),
    # set: an alias of that member, always a live one
    Column("merged_into", UUID(as_uuid=False)),
    Column("display_name", LargeBinary),
    Column("sign_up_channel", Text, nullable=False),
    Column("sign_up_store_id", Text),
    _instant("signed_up_at"),
    _instant("posted_at", now=True),
    Column("version", BigInteger, nullable=False),
    # null once the person is erased
    Column("data_key", LargeBinary),
    PrimaryKeyConstraint("tenant_id", "member_id", name="members_key"),
    ForeignKeyConstraint(
        ["tenant_id", "merged_into"], ["members.tenant_id", "members.member_id"], name="members_survivor"
    ),
    ForeignKeyConstraint(
        ["tenant_id", "sign_up_store_id"], ["stores.tenant_id", "stores.store_id"], name="members_sign_up_store"
    ),
    CheckConstraint("merged_into <> member_id", name="members_no_self_alias"),
    CheckConstraint("version > 0", name="members_version"),
    Index("members_aliases", "tenant_id", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
)

identifiers = Table(
    "identifiers",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    # keyed hash of type, issuer and value
    Column("lookup", LargeBinary, nullable=False),
    Column("member_id", UUID(as_uuid=False), nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("issuer", Text, nullable=False),
    # false: a phone number that is merely claimed
    Column("owns", Boolean, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    # whose key seals it: a merge moves the identifier and leaves it sealed as it was
    Column("sealed_for", UUID(as_uuid=False), nullable=False),
    _instant("linked_at"),
    PrimaryKeyConstraint("tenant_id", "lookup", "member_id", name="identifiers_key"),
    ForeignKeyConstraint(
        ["tenant_id", "member_id"], ["members.tenant_id", "members.member_id"], name="identifiers_member"
    ),
    CheckConstraint("owns OR (type = 1 AND NOT verified)", name="identifiers_claim"),
    CheckConstraint("octet_length(lookup) = 16", name="identifiers_lookup"),
    Index("identifiers_one_owner", "tenant_id", "lookup", unique=True, postgresql_where=text("owns")),
    Index("identifiers_by_member", "tenant_id", "member_id"),
)

merges = Table(
    "merges",
    metadata,
    Column("tenant_id", UUID(as_uuid=False), nullable=False),
    Column("merge_id", UUID(as_uuid=False), nullable=False),
    Column("member_id", UUID(as_uuid=False), nullable=False),
    Column("merged_member_id", UUID(as_uuid=False), nullable=False),
    # sealed with the survivor's key: people write names into it
    Column("evidence", LargeBinary, nullable=False),
    # both members and their identifiers' lookups as they were before, so that the merge can be undone
    Column("snapshot", JSONB, nullable=False),
    Column("merged_by", Text, nullable=False),
    _instant("occurred_at"),
    _instant("posted_at", now=True),
    PrimaryKeyConstraint("tenant_id", "merge_id", name="merges_key"),
    ForeignKeyConstraint(["tenant_id", "member_id"], ["members.tenant_id", "members.member_id"], name="merges_member"),
    ForeignKeyConstraint(
        ["tenant_id", "merged_member_id"], ["members.tenant_id", "members.member_id"], name="merges_merged_member"
    ),
    Index("merges_by_merged", "tenant_id", "merged_member_id"),
)

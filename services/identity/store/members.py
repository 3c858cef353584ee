"""Members and their identifiers as rows. Every writer locks members first, in id order, then writes identifiers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.identity.domain.identifiers import IdentifierType, Named
from services.identity.domain.members import Age, Member
from services.identity.domain.refusals import OwnershipRace
from services.identity.domain.registration import Found, Ownership, SignUp
from services.identity.domain.sealing import new_key, seal, unseal
from services.runtime.database import Connection, Lane, constraint_of, raw
from services.runtime.ids import MemberId

ONE_OWNER = "identifiers_one_owner"

_OWNERS = """
    SELECT i.lookup, i.member_id::text, i.owns
    FROM identifiers AS i
    WHERE i.tenant_id = $1::uuid AND i.lookup = ANY($2::bytea[])
"""
# in id order: two calls that lock the same members must not deadlock
_LOCK = """
    SELECT m.member_id::text, m.merged_into::text, m.signed_up_at, m.version, m.data_key
    FROM members AS m
    WHERE m.tenant_id = $1::uuid AND m.member_id = ANY($2::uuid[])
    ORDER BY m.member_id
    FOR NO KEY UPDATE
"""
_ADD = """
    INSERT INTO members (tenant_id, member_id, display_name, sign_up_channel, sign_up_store_id, signed_up_at, version,
                         data_key)
    SELECT $1::uuid, n.member_id, n.display_name, n.channel, nullif(n.store_id, ''), n.signed_up_at, n.version,
           n.data_key
    FROM unnest($2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::timestamptz[], $7::bigint[], $8::bytea[])
         AS n(member_id, display_name, channel, store_id, signed_up_at, version, data_key)
    ORDER BY n.member_id
"""
# in lookup order, for the same reason; a claim that its member now proves becomes ownership
_LINK = """
    INSERT INTO identifiers AS known
        (tenant_id, lookup, member_id, type, issuer, owns, verified, sealed, sealed_for, linked_at)
    SELECT $1::uuid, n.lookup, n.member_id, n.type, n.issuer, n.owns, n.verified, n.sealed, n.member_id, n.linked_at
    FROM unnest($2::bytea[], $3::uuid[], $4::smallint[], $5::text[], $6::boolean[], $7::boolean[], $8::bytea[],
                $9::timestamptz[])
         AS n(lookup, member_id, type, issuer, owns, verified, sealed, linked_at)
    ORDER BY n.lookup
    ON CONFLICT (tenant_id, lookup, member_id) DO UPDATE
    SET owns = known.owns OR excluded.owns, verified = known.verified OR excluded.verified
"""
_SET_VERSIONS = """
    UPDATE members AS m
    SET version = v.version
    FROM unnest($2::uuid[], $3::bigint[]) AS v(member_id, version)
    WHERE m.tenant_id = $1::uuid AND m.member_id = v.member_id
"""
_SURVIVORS = """
    SELECT m.member_id::text, coalesce(m.merged_into, m.member_id)::text AS survivor
    FROM members AS m
    WHERE m.tenant_id = $1::uuid AND m.member_id = ANY($2::uuid[])
"""
_LOAD = """
    SELECT m.member_id::text, m.display_name, m.sign_up_channel, m.sign_up_store_id, m.signed_up_at, m.version,
           m.data_key
    FROM members AS m
    WHERE m.tenant_id = $1::uuid AND m.member_id = ANY($2::uuid[]) AND m.merged_into IS NULL
"""
# the key of whom the value was sealed for: after a merge that is the alias
_LOAD_IDENTIFIERS = """
    SELECT i.member_id::text, i.lookup, i.type, i.issuer, i.verified, i.sealed, i.sealed_for::text, k.data_key
    FROM identifiers AS i
    JOIN members AS k ON k.tenant_id = i.tenant_id AND k.member_id = i.sealed_for
    WHERE i.tenant_id = $1::uuid AND i.member_id = ANY($2::uuid[])
    ORDER BY i.linked_at, i.type, i.lookup
"""
_RESOLVE = "SELECT lookup, member_id::text, version FROM resolve_members($1::uuid, $2::bytea[])"


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """A member whose row nobody else changes until the transaction ends. `data_key` is None once erased."""

    age: Age
    merged_into: MemberId | None
    version: int
    data_key: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMember:
    """A member to write, with its own key as plain bytes."""

    sign_up: SignUp
    version: int
    data_key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An identifier to write for a member, with that member's key as plain bytes."""

    member_id: MemberId
    found: Found
    data_key: bytes
    linked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """The members of every tenant; `master_key` seals each member's own key."""

    master_key: bytes

    def fresh_key(self) -> bytes:
        """A new member's own key."""
        return new_key()

    async def ownership_of(self, connection: Connection, tenant_id: str, lookups: Iterable[bytes]) -> Ownership:
        """Who owns, and who merely claims, the identifiers."""
        rows = await raw(connection).fetch(_OWNERS, tenant_id, sorted(set(lookups)))
        return Ownership(
            owners={row["lookup"]: MemberId(row["member_id"]) for row in rows if row["owns"]},
            claims=frozenset((row["lookup"], MemberId(row["member_id"])) for row in rows if not row["owns"]),
        )

    async def lock(
        self, connection: Connection, tenant_id: str, member_ids: Iterable[MemberId]
    ) -> dict[MemberId, Locked]:
        """Locks the members in id order, and answers them as they are now; unknown ones are left out."""
        asked = sorted(set(member_ids))
        if not asked:
            return {}
        return {
            MemberId(row["member_id"]): Locked(
                age=Age(member_id=MemberId(row["member_id"]), signed_up_at=row["signed_up_at"]),
                merged_into=row["merged_into"],
                version=row["version"],
                data_key=self._open_key(tenant_id, row["member_id"], row["data_key"]),
            )
            for row in await raw(connection).fetch(_LOCK, tenant_id, asked)
        }

    async def add(self, connection: Connection, tenant_id: str, members: Sequence[NewMember]) -> None:
        """Writes new members in one statement."""
        if not members:
            return
        await raw(connection).execute(
            _ADD,
            tenant_id,
            [new.sign_up.member_id for new in members],
            [self._sealed_name(tenant_id, new) for new in members],
            [new.sign_up.channel for new in members],
            [new.sign_up.store_id for new in members],
            [new.sign_up.signed_up_at for new in members],
            [new.version for new in members],
            [
                seal(self.master_key, new.data_key, bound_to=_key_of(tenant_id, new.sign_up.member_id))
                for new in members
            ],
        )

    async def link(self, connection: Connection, tenant_id: str, links: Sequence[Link]) -> None:
        """Writes identifiers in one statement. Raises OwnershipRace if somebody else came to own one meanwhile."""
        if not links:
            return
        named = [link.found.named for link in links]
        try:
            await raw(connection).execute(
                _LINK,
                tenant_id,
                [link.found.lookup for link in links],
                [link.member_id for link in links],
                [identifier.type.value for identifier in named],
                [identifier.issuer for identifier in named],
                [identifier.owns for identifier in named],
                [identifier.verified for identifier in named],
                [
                    seal(
                        link.data_key,
                        link.found.named.value.encode(),
                        bound_to=_value_of(tenant_id, link.member_id, link.found.lookup),
                    )
                    for link in links
                ],
                [link.linked_at for link in links],
            )
        except Exception as error:
            if constraint_of(error) == ONE_OWNER:
                raise OwnershipRace from error
            raise

    async def set_versions(self, connection: Connection, tenant_id: str, versions: Mapping[MemberId, int]) -> None:
        """Sets the versions of locked members."""
        if versions:
            await raw(connection).execute(_SET_VERSIONS, tenant_id, list(versions), list(versions.values()))

    async def survivors_of(
        self, connection: Connection, tenant_id: str, member_ids: Iterable[str]
    ) -> dict[str, MemberId]:
        """The live member that each id leads to: one step, since aliases always name a live one. Unknown: left out."""
        rows = await raw(connection).fetch(_SURVIVORS, tenant_id, sorted(set(member_ids)))
        return {row["member_id"]: MemberId(row["survivor"]) for row in rows}

    async def load(
        self, connection: Connection, tenant_id: str, member_ids: Iterable[MemberId]
    ) -> dict[MemberId, Member]:
        """The live members by id, with their identifiers in plain text; aliases and unknown ones are left out."""
        asked = sorted(set(member_ids))
        identifiers: dict[str, list[Named]] = {}
        for row in await raw(connection).fetch(_LOAD_IDENTIFIERS, tenant_id, asked):
            identifiers.setdefault(row["member_id"], []).append(self._named(tenant_id, row))
        return {
            MemberId(row["member_id"]): self._member(tenant_id, row, tuple(identifiers.get(row["member_id"], ())))
            for row in await raw(connection).fetch(_LOAD, tenant_id, asked)
        }

    async def resolve(self, lane: Lane, tenant_id: str, lookups: Sequence[bytes]) -> dict[bytes, tuple[MemberId, int]]:
        """The owner of each identifier with its version, in one statement on a lane; unowned ones are left out."""
        rows = await lane.fetch(_RESOLVE, tenant_id, sorted(set(lookups)))
        return {row["lookup"]: (MemberId(row["member_id"]), row["version"]) for row in rows}

    def _open_key(self, tenant_id: str, member_id: str, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        return unseal(self.master_key, sealed, bound_to=_key_of(tenant_id, member_id))

    def _sealed_name(self, tenant_id: str, new: NewMember) -> bytes | None:
        name = new.sign_up.display_name
        if not name:
            return None
        return seal(new.data_key, name.encode(), bound_to=_name_of(tenant_id, new.sign_up.member_id))

    def _named(self, tenant_id: str, row: Any) -> Named:
        key = self._open_key(tenant_id, row["sealed_for"], row["data_key"])
        bound_to = _value_of(tenant_id, row["sealed_for"], row["lookup"])
        return Named(
            type=IdentifierType(row["type"]),
            issuer=row["issuer"],
            value="" if key is None else unseal(key, row["sealed"], bound_to=bound_to).decode(),
            verified=row["verified"],
        )

    def _member(self, tenant_id: str, row: Any, identifiers: tuple[Named, ...]) -> Member:
        key = self._open_key(tenant_id, row["member_id"], row["data_key"])
        sealed = row["display_name"]
        named = key is not None and sealed is not None
        return Member(
            member_id=MemberId(row["member_id"]),
            display_name=_text(key, sealed, _name_of(tenant_id, row["member_id"])) if named else "",
            sign_up_channel=row["sign_up_channel"],
            sign_up_store_id=row["sign_up_store_id"] or "",
            signed_up_at=row["signed_up_at"],
            identifiers=identifiers,
            version=row["version"],
        )


def _text(key: bytes | None, sealed: bytes, bound_to: str) -> str:
    assert key is not None, "an erased member's value was asked for"
    return unseal(key, sealed, bound_to=bound_to).decode()


def _key_of(tenant_id: str, member_id: str) -> str:
    return f"key {tenant_id} {member_id}"


def _name_of(tenant_id: str, member_id: str) -> str:
    return f"name {tenant_id} {member_id}"


def _value_of(tenant_id: str, member_id: str, lookup: bytes) -> str:
    return f"identifier {tenant_id} {member_id} {lookup.hex()}"

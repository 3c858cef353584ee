"""The installation's signing keys as rows, their private halves sealed."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import delete, insert, select, text

from services.identity import tables
from services.identity.domain.sealing import seal, unseal
from services.identity.domain.tokens import PublicKey, SigningKey
from services.runtime.database import Connection

_keys = tables.signing_keys
_COLUMNS = (_keys.c.kid, _keys.c.public_x, _keys.c.public_y, _keys.c.signs_from)
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('siyu.identity.signing_keys', 0))")


async def lock(connection: Connection) -> None:
    """Waits for whoever else makes a key; held to the end of the transaction."""
    await connection.execute(_LOCK)


async def every(connection: Connection) -> tuple[PublicKey, ...]:
    """The public halves of all keys."""
    rows = await connection.execute(select(*_COLUMNS))
    return tuple(
        PublicKey(kid=row.kid, x=row.public_x, y=row.public_y, signs_from=row.signs_from) for row in rows.all()
    )


async def open_key(connection: Connection, public: PublicKey, *, sealed_with: bytes) -> SigningKey:
    """The key with its private half."""
    sealed = (await connection.execute(select(_keys.c.sealed_private).where(_keys.c.kid == public.kid))).scalar_one()
    private = serialization.load_der_private_key(
        unseal(sealed_with, sealed, bound_to=f"signing key {public.kid}"), password=None
    )
    assert isinstance(private, ec.EllipticCurvePrivateKey), "a signing key that is none"
    return SigningKey(public=public, private=private)


async def add(connection: Connection, key: SigningKey, *, sealed_with: bytes) -> None:
    """Writes a new key."""
    plain = key.private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    await connection.execute(
        insert(_keys).values(
            kid=key.public.kid,
            sealed_private=seal(sealed_with, plain, bound_to=f"signing key {key.public.kid}"),
            public_x=key.public.x,
            public_y=key.public.y,
            signs_from=key.public.signs_from,
        )
    )


async def drop(connection: Connection, kids: list[str]) -> None:
    """Deletes keys that verify nothing any more; on the system role."""
    await connection.execute(delete(_keys).where(_keys.c.kid.in_(kids)))

"""The keys that sign tokens: made, published before they sign, kept until their last token has expired."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from services.identity.domain.credentials import Keys
from services.identity.domain.tokens import (
    PublicKey,
    SigningKey,
    next_key_from,
    published_at,
    signs_at,
)
from services.identity.store import keys as key_rows
from services.runtime.clock import Clock
from services.runtime.database import EVERY_TENANT, Connection, Database
from services.runtime.ids import new_id

LOOK_AGAIN_S: Final = 60.0
"""A process learns of a new key within a minute; keys are published an hour before they sign."""

_COORDINATE_BYTES: Final = 32


@dataclass(slots=True, kw_only=True)
class SigningKeys:
    """The installation's signing keys, remembered for a minute. `seconds` is a clock that never jumps."""

    database: Database
    keys: Keys
    clock: Clock
    seconds: Callable[[], float]
    _public: tuple[PublicKey, ...] = ()
    _opened: dict[str, SigningKey] = field(default_factory=dict)
    _read_at: float = float("-inf")
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def current(self) -> SigningKey:
        """The key that signs now; the very first is made when it is first asked for."""
        public = signs_at(await self._known(), self.clock.now())
        assert public is not None, "the first key is made when keys are first read"
        opened = self._opened.get(public.kid)
        if opened is None:
            opened = await self.database.read(
                EVERY_TENANT,
                lambda connection: key_rows.open_key(connection, public, sealed_with=self.keys.signing),
            )
            self._opened = {public.kid: opened}
        return opened

    async def published(self) -> tuple[PublicKey, ...]:
        """The keys that verify tokens now, the newest first."""
        return published_at(await self._known(), self.clock.now())

    async def rotate(self) -> None:
        """Makes the next key where its time has come; several processes at once make one."""

        async def work(connection: Connection) -> None:
            await key_rows.lock(connection)
            signs_from = next_key_from(await key_rows.every(connection), self.clock.now())
            if signs_from is not None:
                key = _new_key(signs_from)
                await key_rows.add(connection, key, sealed_with=self.keys.signing)

        await self.database.run(EVERY_TENANT, work)
        self._read_at = float("-inf")

    async def drop_old(self) -> None:
        """Deletes the keys that verify nothing any more; on the system role."""

        async def work(connection: Connection) -> None:
            every = await key_rows.every(connection)
            kept = {key.kid for key in published_at(every, self.clock.now())}
            if old := [key.kid for key in every if key.kid not in kept]:
                await key_rows.drop(connection, old)

        await self.database.run(EVERY_TENANT, work)

    async def _known(self) -> tuple[PublicKey, ...]:
        if self._is_stale():
            async with self._reading:
                if self._is_stale():
                    await self._read()
        return self._public

    def _is_stale(self) -> bool:
        return self.seconds() - self._read_at > LOOK_AGAIN_S

    async def _read(self) -> None:
        public = await self.database.read(EVERY_TENANT, key_rows.every)
        if not public:
            await self.rotate()
            public = await self.database.read(EVERY_TENANT, key_rows.every)
        self._public, self._read_at = public, self.seconds()


def _new_key(signs_from: datetime) -> SigningKey:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    return SigningKey(
        public=PublicKey(kid=new_id(), x=_coordinate(numbers.x), y=_coordinate(numbers.y), signs_from=signs_from),
        private=private,
    )


def _coordinate(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(_COORDINATE_BYTES, "big")).decode().rstrip("=")

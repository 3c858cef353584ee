"""Who is calling: tokens verified by identity's public keys, and the rule that each RPC declares.

Verifying a signature costs 100 µs and a token lives for minutes, so a verified token is remembered until it expires.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import jwt
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from services.runtime.call import OUT_OF_SCOPE, Actor, ActorKind
from services.runtime.errors import DomainError, Invalid, NotAllowed, Unauthenticated, Unavailable
from siyu.common.v1 import rule_pb2

ISSUER = "siyu"
AUDIENCE = "siyu"
ALGORITHM = "ES256"
MAX_REMEMBERED = 20_000
REFETCH_AFTER_S = 5.0
# without any key nobody can be served: look sooner, but not once for each call that waits
RETRY_AFTER_S = 0.5
LEEWAY_S = 5

JsonWebKeys = list[dict[str, str]]

_KINDS: Mapping[int, ActorKind] = {
    rule_pb2.ACTOR_KIND_POS: ActorKind.POS,
    rule_pb2.ACTOR_KIND_BACKEND: ActorKind.BACKEND,
    rule_pb2.ACTOR_KIND_SUPPLIER: ActorKind.SUPPLIER,
    rule_pb2.ACTOR_KIND_PARTNER: ActorKind.PARTNER,
    rule_pb2.ACTOR_KIND_STAFF: ActorKind.STAFF,
    rule_pb2.ACTOR_KIND_SERVICE: ActorKind.SERVICE,
    rule_pb2.ACTOR_KIND_PLATFORM: ActorKind.PLATFORM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """What a verified token says. `expires_at` is machine time in seconds since the epoch."""

    actor: Actor
    tenant_id: str
    client_id: str
    time_zone: str
    has_test_clock: bool
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An RPC's rule, as its contract declares it."""

    scopes: frozenset[str]
    kinds: frozenset[ActorKind]
    object: int
    object_path: tuple[str, ...]
    deadline_s: float
    public: bool
    family: str
    shedding: int


def rule_of(method: MethodDescriptor) -> Rule:
    """The rule of an RPC. An RPC without one, or with one that lets everybody in unsaid, does not start."""
    options = method.GetOptions()
    assert options.HasExtension(rule_pb2.rule), f"{method.full_name} declares no rule"
    rule = options.Extensions[rule_pb2.rule]
    assert rule.public or rule.scopes, f"{method.full_name} is neither public nor has it a scope"
    assert rule.deadline_ms > 0, f"{method.full_name} declares no deadline"
    return Rule(
        scopes=frozenset(rule.scopes),
        kinds=frozenset(_KINDS[kind] for kind in rule.actors),
        object=rule.object,
        object_path=tuple(rule.object_field.split(".")) if rule.object_field else (),
        deadline_s=rule.deadline_ms / 1000,
        public=rule.public,
        family=rule.family,
        shedding=rule.shedding or rule_pb2.SHEDDING_READ,
    )


@dataclass(slots=True)
class TokenVerifier:
    """Verifies bearer tokens. `fetch` reads identity's key set."""

    fetch: Callable[[], Awaitable[JsonWebKeys]]
    _keys: dict[str, jwt.PyJWK] = field(default_factory=dict)
    _fetch_at: float = float("-inf")
    _is_away: bool = False
    _remembered: dict[str, Principal] = field(default_factory=dict)
    _fetching: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def verify(self, token: str) -> Principal:
        """The principal of a token. Raises Unauthenticated (TOKEN_EXPIRED, TOKEN_INVALID)."""
        known = self._remembered.get(token)
        if known is not None:
            if known.expires_at + LEEWAY_S > time.time():  # noqa: TID251 - tokens expire by the wall clock
                return known
            del self._remembered[token]
            raise Unauthenticated("the token has expired; ask for a new one", reason="TOKEN_EXPIRED")
        principal = await self._verify(token)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[token] = principal
        return principal

    async def _verify(self, token: str) -> Principal:
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub", "aud", "iss"]},
            )
            return principal_of(claims)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; ask for a new one", reason="TOKEN_EXPIRED") from None
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
            raise Unauthenticated("the token is not valid here", reason="TOKEN_INVALID") from None

    async def _key(self, key_id: str) -> jwt.PyJWK:
        if key_id not in self._keys:
            async with self._fetching:
                # an unknown key id must not let a stranger make us ask identity at each call
                if key_id not in self._keys and time.monotonic() >= self._fetch_at:
                    await self._refetch()
        if not self._keys:
            raise Unavailable("the keys that verify tokens are not here yet; try again", reason="KEYS_NOT_READY")
        if key_id not in self._keys and self._is_away:
            raise Unavailable("the keys that verify tokens can't be read; try again", reason="KEYS_NOT_READY")
        if key_id not in self._keys:
            raise Unauthenticated("the token was signed by no key of ours", reason="TOKEN_INVALID")
        return self._keys[key_id]

    async def _refetch(self) -> None:
        try:
            found = await self.fetch()
        except DomainError:
            self._is_away = True
        else:
            self._is_away = False
            self._keys = {key["kid"]: jwt.PyJWK(key, algorithm=ALGORITHM) for key in found}
        self._fetch_at = time.monotonic() + (REFETCH_AFTER_S if self._keys else RETRY_AFTER_S)


def principal_of(claims: Mapping[str, object]) -> Principal:
    """Reads a token's claims. Raises KeyError or ValueError if one is not as it must be."""
    client_id = str(claims["sub"])
    expires_at = claims["exp"]
    assert isinstance(expires_at, int | float), "pyjwt checked exp"
    return Principal(
        actor=Actor(
            kind=ActorKind(str(claims["kind"])),
            id=client_id,
            scopes=frozenset(str(claims.get("scp", "")).split()),
            store_id=str(claims.get("sto", "")),
            supplier_id=str(claims.get("sup", "")),
        ),
        tenant_id=str(claims.get("tid", "")),
        client_id=client_id,
        time_zone=str(claims.get("tz", "")) or "Asia/Shanghai",
        has_test_clock=bool(claims.get("tc", False)),
        expires_at=float(expires_at),
    )


def allow(rule: Rule, principal: Principal, request: Message | None) -> None:
    """Raises NotAllowed unless the rule lets this principal make this request."""
    actor = principal.actor
    if rule.scopes.isdisjoint(actor.scopes):
        wanted = " or ".join(sorted(rule.scopes))
        raise NotAllowed(f"the token lacks the scope {wanted}", reason="SCOPE_MISSING", metadata={"scope": wanted})
    if rule.kinds and actor.kind not in rule.kinds:
        raise NotAllowed(f"not for a caller of kind {actor.kind}", reason="ACTOR_KIND_REFUSED")
    # the platform founds tenants, and our own services read each other's logs over all of them
    if not principal.tenant_id and actor.kind not in (ActorKind.PLATFORM, ActorKind.SERVICE):
        raise NotAllowed("the token names no tenant; ask for one that does", reason="TENANT_MISSING")
    if rule.object and rule.object_path and request is not None:
        check_object(rule, actor, request)


def check_object(rule: Rule, actor: Actor, request: Message) -> None:
    """Raises NotAllowed (OUT_OF_SCOPE) if the actor is bound to another object than the request names."""
    value: object = request
    field = ".".join(rule.object_path)
    for name in rule.object_path:
        value = getattr(value, name)
    if rule.object == rule_pb2.OBJECT_SCOPE_OWN_STORE:
        actor.check_store(str(value), field=field)
    elif rule.object == rule_pb2.OBJECT_SCOPE_OWN_SUPPLIER:
        actor.check_supplier(str(value), field=field)
    else:
        raise NotAllowed("this object can't be scoped by its request", reason=OUT_OF_SCOPE)


def bearer(value: str | None) -> str:
    """The token of an authorization header. Raises Unauthenticated (TOKEN_MISSING) if there is none."""
    if not value:
        raise Unauthenticated("send authorization: Bearer <token>", reason="TOKEN_MISSING")
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("send authorization: Bearer <token>", reason="TOKEN_MISSING")
    return token.strip()


def check_deadline(rule: Rule, principal: Principal | None, remaining_s: float | None) -> None:
    """Raises Invalid (DEADLINE_REQUIRED) for a call between services that changes something and has no deadline."""
    if remaining_s is None and rule.family and principal is not None and principal.actor.kind is ActorKind.SERVICE:
        raise Invalid("a service's changing call needs a deadline", reason="DEADLINE_REQUIRED")

"""The gateway's application: what Envoy asks, the documents, and the event feed. It decides no business."""

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass

import orjson
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.body import Document
from gateway.feed import DEFAULT_LIMIT, MAX_LIMIT, Feed, Start
from gateway.jwks import Jwks
from gateway.keys import ApiKey, ApiKeys
from gateway.limits import Limits, Rate
from gateway.pages import (
    ADDRESS_HEADER,
    API_KEY_HEADER,
    CLIENT_HEADER,
    CONTENT_HEADER,
    EVENTS,
    JWKS,
    KEY_CHECK,
    LIMIT_CHECK,
    PAGES,
)
from gateway.refusals import internal, method_refused, refusal
from services.runtime import telemetry
from services.runtime.auth import TokenVerifier, bearer
from services.runtime.call import OUT_OF_SCOPE, Call, deadline_in
from services.runtime.clock import Clock
from services.runtime.errors import DomainError, Exhausted, Invalid, Missing, NotAllowed, Unauthenticated

EVENTS_SCOPE = "events.read"
# Less than Envoy gives the page, so that the refusal is ours.
EVENTS_DEADLINE_S = 9.0
JWKS_MAX_AGE_S = 60
_ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# The page needs nothing from elsewhere, and nothing from elsewhere may run in it.
_PAGE_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; base-uri 'none'"

Endpoint = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What is the same for everybody, by path."""

    by_path: dict[str, Document]


@dataclass(slots=True, kw_only=True)
class Edge:
    """The endpoints. `draining` is set while the process ends, so that nobody new is sent here."""

    keys: ApiKeys
    limits: Limits
    per_client: Rate
    per_address: Rate
    jwks: Jwks
    verifier: TokenVerifier
    feed: Feed
    documents: Documents
    clock: Clock
    draining: bool = False

    def app(self) -> Starlette:
        """The ASGI application; what Envoy asks for every call comes first."""
        documents = [Route(path, _answering(self.document)) for path in self.documents.by_path]
        return Starlette(
            routes=[
                Route(f"{LIMIT_CHECK}/{{path:path}}", _answering(self.check_limit), methods=_ANY_METHOD),
                Route(f"{KEY_CHECK}/{{path:path}}", _answering(self.check_key), methods=_ANY_METHOD),
                Route(EVENTS, _answering(self.events)),
                Route(JWKS, _answering(self.json_web_keys)),
                Route("/healthz", self.healthz),
                Route("/readyz", _answering(self.readyz)),
                Route("/", self.home),
                *documents,
            ],
            exception_handlers={404: _not_found, 405: _not_allowed},
        )

    async def check_limit(self, request: Request) -> Response:
        """Counts one call of the client, or of the address where no token was needed. 200 or 429."""
        client = request.headers.get(CLIENT_HEADER, "")
        if client:
            await self._count(f"client/{client}", self.per_client)
        else:
            await self._count(f"address/{request.headers.get(ADDRESS_HEADER, '')}", self.per_address)
        return Response()

    async def check_key(self, request: Request) -> Response:
        """Exchanges an API key: 200 with the token for the call upstream, 401, or 429 after too many wrong ones."""
        bucket = f"address/{request.headers.get(ADDRESS_HEADER, '')}"
        try:
            key = ApiKey.parse(request.headers.get(API_KEY_HEADER, ""))
        except Unauthenticated:
            await self._count(bucket, self.per_address)
            raise
        token = await self.keys.token(key, guess=lambda: self._guess(bucket))
        return Response(headers={"authorization": f"Bearer {token}"})

    async def events(self, request: Request) -> Response:
        """A page of the tenant's events."""
        call = await self._call(request)
        cursor, limit, start = _page_asked(request)
        page = await self.feed.page(call, cursor=cursor, limit=limit, start=start)
        return Response(
            orjson.dumps(page.as_json()), media_type="application/json", headers={"cache-control": "no-store"}
        )

    async def json_web_keys(self, _request: Request) -> Response:
        """Identity's public keys."""
        return Response(
            await self.jwks.document(),
            media_type="application/json",
            headers={"cache-control": f"public, max-age={JWKS_MAX_AGE_S}"},
        )

    async def document(self, request: Request) -> Response:
        """A fixed document."""
        return self.documents.by_path[request.url.path].answer(
            request, headers={"content-security-policy": _PAGE_POLICY, "referrer-policy": "no-referrer"}
        )

    async def home(self, _request: Request) -> Response:
        """Whoever looks at the address in a browser wants the documentation."""
        return RedirectResponse("/docs", status_code=307)

    async def healthz(self, _request: Request) -> Response:
        """Alive: asks nobody else, or one dead dependency would restart everything."""
        return Response("ok\n", media_type="text/plain")

    async def readyz(self, _request: Request) -> Response:
        """Ready: the keys that verify tokens are here, and the process is not about to end."""
        if self.draining:
            return Response("draining\n", status_code=503, media_type="text/plain")
        await self.jwks.document()
        return Response("ok\n", media_type="text/plain")

    @asynccontextmanager
    async def _guess(self, bucket: str) -> AsyncIterator[None]:
        """Counted before identity is asked, or it would answer guesses as fast as they come; a good one is no guess."""
        await self._count(bucket, self.per_address)
        yield
        await self.limits.give_back(bucket, self.per_address)

    async def _count(self, key: str, rate: Rate) -> None:
        wait_s = await self.limits.wait_s(key, rate)
        if wait_s > 0:
            raise Exhausted(
                f"more than {rate.per_s:g} calls a second; come back in a moment",
                subject=key.partition("/")[0],
                reason="RATE_LIMITED",
                retry_after_s=wait_s,
            )

    async def _call(self, request: Request) -> Call:
        """Who reads the feed. Envoy has verified the token; it is verified here too, since tenant and scope count."""
        principal = await self.verifier.verify(bearer(request.headers.get("authorization")))
        actor = principal.actor
        if EVENTS_SCOPE not in actor.scopes:
            raise NotAllowed(
                f"the token lacks the scope {EVENTS_SCOPE}", reason="SCOPE_MISSING", metadata={"scope": EVENTS_SCOPE}
            )
        if actor.store_id or actor.supplier_id:
            raise NotAllowed("the feed holds the whole brand's events; this client is bound", reason=OUT_OF_SCOPE)
        if not principal.tenant_id:
            raise NotAllowed("the token names no tenant; ask for one that does", reason="TENANT_MISSING")
        return Call(
            tenant_id=principal.tenant_id,
            client_id=principal.client_id,
            actor=actor,
            now=self.clock.now(),
            time_zone=principal.time_zone,
            deadline_at=deadline_in(EVENTS_DEADLINE_S),
            trace_id=request.state.trace.trace_id,
            trace=request.state.trace.traceparent,
        )


def _page_asked(request: Request) -> tuple[str, int, Start]:
    """Raises Invalid for a parameter that is unknown, like Envoy does, or not as it must be."""
    asked = request.query_params
    if unknown := set(asked) - {"cursor", "limit", "start"}:
        raise Invalid("no such parameter", field=sorted(unknown)[0])
    text = asked.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise Invalid(f"a whole number from 1 to {MAX_LIMIT}", field="limit")
    match asked.get("start", "oldest"):
        case "oldest":
            return asked.get("cursor", ""), int(text), "oldest"
        case "now":
            return asked.get("cursor", ""), int(text), "now"
        case _:
            raise Invalid('"oldest" or "now"', field="start")


def _answering(endpoint: Endpoint) -> Endpoint:
    """The endpoint with its trace, and with refusals and bugs answered as google.rpc.Status."""

    @functools.wraps(endpoint)
    async def answered(request: Request) -> Response:
        with telemetry.entered(f"edge.{endpoint.__name__}", request.headers.get("traceparent", "")) as trace:
            request.state.trace = trace
            started_s = time.perf_counter()
            try:
                return await endpoint(request)
            except DomainError as error:
                return refusal(error, trace_id=trace.trace_id, grpc=_speaks_grpc(request))
            except Exception as error:  # noqa: BLE001 - a bug must not tell a stranger what it looks like
                _log.error("an endpoint failed", endpoint=endpoint.__name__, exc_info=error)
                return internal(trace_id=trace.trace_id, grpc=_speaks_grpc(request))
            finally:
                telemetry.SECONDS.labels(f"edge.{endpoint.__name__}").observe(time.perf_counter() - started_s)

    return answered


def _speaks_grpc(request: Request) -> bool:
    """Whether the caller behind Envoy does."""
    return request.headers.get(CONTENT_HEADER, "").startswith("application/grpc")


async def _not_found(request: Request, _error: Exception) -> Response:
    error = Missing(
        "no such path; /openapi.json lists them all", kind="path", name=request.url.path, reason="PATH_NOT_FOUND"
    )
    with _unserved(request) as trace:
        return refusal(error, trace_id=trace.trace_id)


async def _not_allowed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "starlette raises it"
    allowed = (error.headers or {})["Allow"]
    with _unserved(request) as trace:
        return method_refused(allowed, trace_id=trace.trace_id)


def _unserved(request: Request) -> AbstractContextManager[telemetry.Trace]:
    """No endpoint ran, and so none began a trace: the refusal names one like every other."""
    return telemetry.entered("edge.unserved", request.headers.get("traceparent", ""))


assert {page.path for page in PAGES} >= {EVENTS, JWKS}, "Envoy must route what the application serves"

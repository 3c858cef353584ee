"""What the edge serves by itself, beside the RPCs: Envoy routes these paths to the gateway's application."""

from dataclasses import dataclass
from typing import Final

# What Envoy asks the application, and nobody else: no route of the edge leads here.
KEY_CHECK = "/edge/key"
LIMIT_CHECK = "/edge/limit"

API_KEY_HEADER: Final = "x-api-key"
# Set by Envoy from the verified token, for the limit; stripped from what comes from outside like all of `x-siyu-`.
CLIENT_HEADER: Final = "x-siyu-client"
# The caller's address as far as it can be trusted, for the limit of calls without a token.
ADDRESS_HEADER: Final = "x-siyu-address"
# The content type as it came: after the transcoder every call looks like gRPC.
CONTENT_HEADER: Final = "x-siyu-content-type"
OURS: Final = "x-siyu-"

JWKS = "/.well-known/jwks.json"
EVENTS = "/v1/events"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A path of the application that the world may call. A prefix ends in a slash."""

    name: str
    path: str
    public: bool = True
    limited: bool = True
    deadline_ms: int = 5_000

    @property
    def is_prefix(self) -> bool:
        """Whether everything below the path belongs to it."""
        return self.path.endswith("/") and self.path != "/"


PAGES = (
    Page(name="home", path="/"),
    Page(name="health", path="/healthz", limited=False),
    Page(name="openapi", path="/openapi.json"),
    Page(name="docs", path="/docs"),
    Page(name="docs.files", path="/docs/"),
    Page(name="jwks", path=JWKS),
    Page(name="events", path=EVENTS, public=False, deadline_ms=10_000),
)

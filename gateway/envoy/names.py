"""The names by which parts of Envoy's configuration refer to each other."""

from typing import Any, Final

Config = dict[str, Any]

BUFFER: Final = "siyu.buffer"
TRANSCODER: Final = "siyu.transcoder"
API_KEY: Final = "siyu.api_key"
TOKEN: Final = "siyu.token"  # noqa: S105 - the name of a filter
LIMIT: Final = "siyu.limit"

GATEWAY: Final = "gateway"
TELEMETRY: Final = "telemetry"
ADMIN: Final = "admin"
PROVIDER: Final = "siyu"
CERTIFICATE: Final = "edge"

_TYPES: Final = "type.googleapis.com/"


def typed(name: str, message: str, **fields: Any) -> Config:
    """A named extension: its configuration is a message of the given type."""
    return {"name": name, "typed_config": of_type(message, **fields)}


def of_type(message: str, **fields: Any) -> Config:
    """A message that says its type."""
    return {"@type": f"{_TYPES}{message}", **fields}


def seconds(value_ms: int) -> str:
    """Milliseconds as protobuf's JSON writes a Duration."""
    return f"{value_ms / 1000:.3f}s"


def socket_address(address: str) -> Config:
    """host:port, or [host]:port, as Envoy names a socket."""
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}

"""Settings from the environment, the same names on a laptop and in a cluster."""

import logging
from typing import Literal, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

S = TypeVar("S", bound=BaseSettings)

DatabaseRole = Literal["app", "system", "owner"]
MAX_OPEN_ORDERS = 20
SERVICES = ("identity", "loyalty", "campaign", "commerce")


class Settings(BaseSettings):
    """Every setting of every role; an unset address is one that this role does not call."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    # out of repr(): URLs and secrets must not reach a log or a traceback
    database_url: str = Field(default="postgresql://localhost:5432/siyu", validation_alias="DATABASE_URL", repr=False)
    redis_url: str = Field(default="redis://localhost:6379/0", validation_alias="REDIS_URL", repr=False)
    role_password: str = Field(default="", validation_alias="SIYU_ROLE_PASSWORD", repr=False)
    log_partitions: int = Field(default=8, ge=1, le=256, validation_alias="SIYU_LOG_PARTITIONS")

    identity_address: str = Field(default="localhost:50051", validation_alias="SIYU_IDENTITY_ADDRESS")
    loyalty_address: str = Field(default="localhost:50052", validation_alias="SIYU_LOYALTY_ADDRESS")
    campaign_address: str = Field(default="localhost:50053", validation_alias="SIYU_CAMPAIGN_ADDRESS")
    commerce_address: str = Field(default="localhost:50054", validation_alias="SIYU_COMMERCE_ADDRESS")
    gateway_address: str = Field(default="localhost:50060", validation_alias="SIYU_GATEWAY_ADDRESS")

    listen: str = Field(default="[::]:50051", validation_alias="SIYU_LISTEN")
    # its name among those that listen at the same address: gRPC health answers by it for this process alone
    process: str = Field(default="", validation_alias="SIYU_PROCESS")
    metrics_port: int = Field(default=0, ge=0, le=65535, validation_alias="SIYU_METRICS_PORT")
    service_secret: str = Field(default="", validation_alias="SIYU_SERVICE_SECRET", repr=False)
    pool_size: int = Field(default=8, ge=1, le=200, validation_alias="SIYU_POOL_SIZE")
    batch_lanes: int = Field(default=2, ge=1, le=32, validation_alias="SIYU_BATCH_LANES")
    # placed orders of one member that wait for payment at a time: they reserve what nobody else can buy
    max_open_orders: int = Field(default=MAX_OPEN_ORDERS, ge=1, le=10_000, validation_alias="SIYU_MAX_OPEN_ORDERS")
    log_level: str = Field(default="INFO", validation_alias="SIYU_LOG_LEVEL")
    trace_ratio: float = Field(default=0.0, ge=0, le=1, validation_alias="SIYU_TRACE_RATIO")
    otlp_endpoint: str = Field(default="", validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    drain_s: float = Field(default=10.0, ge=0, le=600, validation_alias="SIYU_DRAIN_S")

    @field_validator("log_level")
    @classmethod
    def _known_level(cls, level: str) -> str:
        """Or logging would say so in a traceback."""
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError("there is no such level; INFO is one")
        return level

    def address_of(self, service: str) -> str:
        """The gRPC address (host:port) of a service by name."""
        assert service in SERVICES, f"no service {service!r}"
        address: str = getattr(self, f"{service}_address")
        return address

    def admin_dsn(self) -> str:
        """The URL that migrations connect with, in the form that asyncpg takes."""
        return urlunsplit(urlsplit(self.database_url)._replace(scheme="postgresql"))

    def role_dsn(self, service: str, role: DatabaseRole) -> str:
        """The URL with the service's role for its user, whoever it names: same host, same database, fewer rights."""
        parts = urlsplit(self.database_url)
        user = role_name(service, role)
        secret = f":{quote(self.role_password, safe='')}" if self.role_password else ""
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(scheme="postgresql", netloc=f"{user}{secret}@{host}"))


class WrongSettingsError(Exception):
    """The environment has values that can't be; the message is a line that names each variable."""


def from_environment(kind: type[S]) -> S:
    """The settings as the environment has them. Raises WrongSettingsError; what is secret is not told."""
    try:
        return kind()
    except ValidationError as wrong:
        raise WrongSettingsError("; ".join(_told(kind, each) for each in wrong.errors())) from None


def _told(kind: type[BaseSettings], error: ErrorDetails) -> str:
    why = error["msg"].removeprefix("Value error, ")
    name = ".".join(map(str, error["loc"]))
    # a rule over several settings names them itself
    if not name:
        return why
    shown = any(field.validation_alias == name and field.repr for field in kind.model_fields.values())
    return f"{name}={error['input']}: {why}" if shown and error["type"] != "missing" else f"{name}: {why}"


def without_user(url: str) -> str:
    """The URL of the same database that names nobody: all that a role must be told, since it logs in as its own."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def role_name(service: str, role: DatabaseRole) -> str:
    """The database role: `siyu_<service>` serves calls, `_system` relays and sweeps, `_owner` migrates."""
    return f"siyu_{service}" if role == "app" else f"siyu_{service}_{role}"

"""How a local stack is to be: all of it has a default, and all of it can be set by environment."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.console.stack import ports
from services.console.stack.refusals import WrongSetting
from services.console.stack.roles import Split
from services.runtime.settings import WrongSettingsError, from_environment

REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULT_SPLIT: Split = "service"


class StackSettings(BaseSettings):
    """Ports, split, directory; and servers of one's own instead of embedded ones."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    state_directory: Path = Field(default=REPOSITORY / ".siyu", validation_alias="SIYU_STATE_DIR")
    split: Split = Field(default=DEFAULT_SPLIT, validation_alias="SIYU_LOCAL_SPLIT")
    # each takes one processor at most; they share their port, and the kernel spreads connections over them
    api_processes: int = Field(default=1, ge=1, le=16, validation_alias="SIYU_LOCAL_API_PROCESSES")
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    # The services' roles belong to the server, not to a database: installations that share one share this password.
    role_password: str | None = Field(default=None, validation_alias="SIYU_ROLE_PASSWORD", repr=False)
    # two are enough for one machine: a consumer's transaction then takes several events instead of one
    log_partitions: int = Field(default=2, ge=1, le=256, validation_alias="SIYU_LOG_PARTITIONS")
    shared_buffers_mb: int = Field(default=512, ge=16, validation_alias="SIYU_POSTGRES_SHARED_BUFFERS_MB")
    drain_s: float = Field(default=0.5, ge=0, le=600, validation_alias="SIYU_DRAIN_S")

    edge_port: int = Field(default=8080, ge=1, le=65535, validation_alias="SIYU_EDGE_PORT")
    envoy_admin_port: int = Field(default=8081, ge=1, le=65535, validation_alias="SIYU_ENVOY_ADMIN_PORT")
    gateway_port: int = Field(default=50060, ge=1, le=65535, validation_alias="SIYU_GATEWAY_PORT")
    identity_port: int = Field(default=50051, ge=1, le=65535, validation_alias="SIYU_IDENTITY_PORT")
    loyalty_port: int = Field(default=50052, ge=1, le=65535, validation_alias="SIYU_LOYALTY_PORT")
    campaign_port: int = Field(default=50053, ge=1, le=65535, validation_alias="SIYU_CAMPAIGN_PORT")
    commerce_port: int = Field(default=50054, ge=1, le=65535, validation_alias="SIYU_COMMERCE_PORT")
    postgres_port: int = Field(default=15432, ge=1, le=65535, validation_alias="SIYU_POSTGRES_PORT")
    valkey_port: int = Field(default=16379, ge=1, le=65535, validation_alias="SIYU_VALKEY_PORT")

    def ports(self) -> dict[str, int]:
        """Each port that the stack itself opens, by the variable that sets it."""
        needed = {
            f"SIYU_{name.upper()}": getattr(self, name)
            for name in type(self).model_fields
            if name.endswith("_port")
            and not (name == "postgres_port" and self.database_url)
            and not (name == "valkey_port" and self.redis_url)
        }
        assert len(needed) >= 7, "a port lost its name"
        return needed

    @classmethod
    def from_environment(cls) -> "StackSettings":
        """What the environment says. Raises WrongSetting with a line that names each variable that can't be."""
        try:
            settings = from_environment(cls)
        except WrongSettingsError as wrong:
            raise WrongSetting(str(wrong)) from None
        settings.require_different_ports()
        return settings

    def require_different_ports(self) -> None:
        """Raises WrongSetting that names the settings with the same port: each would find it free at the start."""
        by_port: dict[int, list[str]] = defaultdict(list)
        for setting, port in self.ports().items():
            by_port[port].append(setting)
        shared = [
            f"{' and '.join(names)} are the same port {port}" for port, names in by_port.items() if len(names) > 1
        ]
        if shared:
            raise WrongSetting(f"{'; '.join(shared)}: each needs one of its own")

    @classmethod
    def for_tests(
        cls, directory: Path, *, split: Split = DEFAULT_SPLIT, api_processes: int = 1, shared_buffers_mb: int = 128
    ) -> "StackSettings":
        """A stack on free ports in a directory of its own, with its own servers unless the environment names some."""
        names = [name for name in cls.model_fields if name.endswith("_port")]
        free: dict[str, Any] = dict(zip(names, ports.pick(len(names)), strict=True))
        return cls(
            state_directory=directory,
            split=split,
            api_processes=api_processes,
            shared_buffers_mb=shared_buffers_mb,
            **free,
        )

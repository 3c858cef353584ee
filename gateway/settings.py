"""The edge's own settings, beside those that every role has (services.runtime.settings)."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class EdgeSettings(BaseSettings):
    """Where Envoy listens, and how much it lets through. Read from the environment, each with a default."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    listen: str = Field(default="0.0.0.0:8080", validation_alias="SIYU_EDGE_LISTEN")
    # Envoy's admin page can stop it and shows its configuration: loopback, or a pod's own address.
    admin: str = Field(default="127.0.0.1:9901", validation_alias="SIYU_ENVOY_ADMIN")
    # Where a cluster asks Envoy how it is; empty: nowhere. Answers /ready and /stats/prometheus, nothing else.
    probes: str = Field(default="", validation_alias="SIYU_EDGE_PROBES")
    tls_certificate: Path | None = Field(default=None, validation_alias="SIYU_EDGE_TLS_CERTIFICATE")
    tls_key: Path | None = Field(default=None, validation_alias="SIYU_EDGE_TLS_KEY")
    # Load balancers in front of Envoy that append to x-forwarded-for; what stands before their entries is hearsay.
    trusted_hops: int = Field(default=0, ge=0, le=8, validation_alias="SIYU_EDGE_TRUSTED_HOPS")

    max_request_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, validation_alias="SIYU_EDGE_MAX_REQUEST_BYTES")
    max_reply_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, validation_alias="SIYU_EDGE_MAX_REPLY_BYTES")

    client_rate_per_s: float = Field(default=200.0, gt=0, validation_alias="SIYU_EDGE_CLIENT_RATE_PER_S")
    client_burst: int = Field(default=400, ge=1, validation_alias="SIYU_EDGE_CLIENT_BURST")
    # Calls without a credential, and wrong credentials, are counted by address.
    address_rate_per_s: float = Field(default=20.0, gt=0, validation_alias="SIYU_EDGE_ADDRESS_RATE_PER_S")
    address_burst: int = Field(default=60, ge=1, validation_alias="SIYU_EDGE_ADDRESS_BURST")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        """One of the two alone would open the edge without TLS, and say nothing."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("SIYU_EDGE_TLS_CERTIFICATE and SIYU_EDGE_TLS_KEY go together: one of them is missing")
        return self

    @property
    def speaks_tls(self) -> bool:
        """Whether a certificate and its key are given."""
        return self.tls_certificate is not None

"""The whole configuration: what `envoy --config-path` reads."""

from pathlib import Path

from gateway.envoy.clusters import clusters
from gateway.envoy.listener import listener
from gateway.envoy.names import Config, socket_address
from gateway.envoy.probes import probes
from gateway.settings import EdgeSettings
from services.runtime.settings import Settings

# Above it Envoy refuses new connections instead of falling over.
MAX_DOWNSTREAM_CONNECTIONS = 20_000


def bootstrap(settings: Settings, edge: EdgeSettings, *, certificate: Path | None = None) -> Config:
    """Envoy's configuration for these addresses, ready to be written as JSON; with TLS, `certificate` is the file that
    tells of it (see listener.py)."""
    assert edge.speaks_tls == (certificate is not None), "TLS needs the file, and nothing else does"
    listeners, targets = [listener(settings, edge, certificate=certificate)], clusters(settings)
    if edge.probes:
        asked, answering = probes(edge)
        listeners.append(asked)
        targets.append(answering)
    return {
        "node": {"id": "edge", "cluster": "siyu"},
        "admin": {"address": socket_address(edge.admin)},
        "static_resources": {"listeners": listeners, "clusters": targets},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": MAX_DOWNSTREAM_CONNECTIONS,
                    },
                }
            ]
        },
    }

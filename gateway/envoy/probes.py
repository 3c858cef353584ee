"""A second listener for a cluster's probes and metrics: two paths of the admin page, and no way to the others."""

from gateway.envoy.names import ADMIN, Config, socket_address, typed
from gateway.settings import EdgeSettings

OPEN = ("/ready", "/stats/prometheus")


def probes(edge: EdgeSettings) -> tuple[Config, Config]:
    """The listener, and the cluster that leads to the admin page."""
    manager = typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="probes",
        normalize_path=True,
        route_config={
            "name": "probes",
            "virtual_hosts": [
                {
                    "name": "probes",
                    "domains": ["*"],
                    "routes": [{"match": {"path": path}, "route": {"cluster": ADMIN}} for path in OPEN],
                }
            ],
        },
        http_filters=[typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")],
    )
    listener = {
        "name": "probes",
        "address": socket_address(edge.probes),
        # a probe must get through when the edge is full
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": [{"filters": [manager]}],
    }
    cluster = {
        "name": ADMIN,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": ADMIN,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(edge.admin)}}]}],
        },
    }
    return listener, cluster

"""Which roles there are, and how they are spread over processes on one machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Split = Literal["service", "api", "role"]

# Listed here and not imported: a service's code takes a second to load, and the supervisor needs only the names.
# A test compares this with each service's main.ROLES.
ROLES: dict[str, tuple[str, ...]] = {
    "identity": ("api", "relay", "sweeper"),
    "loyalty": ("api", "relay", "sweeper", "worker:accrual", "worker:members"),
    "campaign": ("api", "relay", "sweeper", "worker:usage", "worker:members"),
    "commerce": ("api", "relay", "sweeper", "worker:orders", "worker:fulfilment", "worker:members"),
    "gateway": ("edge",),
}

# Of all that a role is told, what no default can be right for. Only identity's api and sweeper seal with the root
# secret; the edge has no database.
_EVERY_ROLE = ("REDIS_URL", "SIYU_SERVICE_SECRET")
_WITH_ROOT_SECRET = frozenset({("identity", "api"), ("identity", "sweeper")})


def needed(service: str, roles: Iterable[str]) -> tuple[str, ...]:
    """The environment variables without which these roles of the service can't work, by name."""
    names = set(_EVERY_ROLE)
    if service != "gateway":
        names.add("DATABASE_URL")
    if any((service, role) in _WITH_ROOT_SECRET for role in roles):
        names.add("SIYU_ROOT_SECRET")
    return tuple(sorted(names))


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The roles of one service that live in one process."""

    name: str
    service: str
    roles: tuple[str, ...]

    @property
    def is_called(self) -> bool:
        """Whether others call this process, so that its address must be known to them."""
        return "api" in self.roles or "edge" in self.roles


def shares(split: Split, *, api_processes: int = 1) -> tuple[Share, ...]:
    """The processes of a stack: one a service, its api apart from the rest, or one a role.

    Of each gRPC api there are `api_processes`, which share its port."""
    return tuple(
        share
        for service, roles in ROLES.items()
        for share in (*_split(service, roles, split), *_more_apis(service, roles, api_processes))
    )


def _split(service: str, roles: tuple[str, ...], split: Split) -> tuple[Share, ...]:
    if split == "service" or len(roles) == 1:
        return (Share(name=service, service=service, roles=roles),)
    if split == "api":
        background = tuple(role for role in roles if role != "api")
        return (
            Share(name=f"{service}/api", service=service, roles=("api",)),
            Share(name=f"{service}/background", service=service, roles=background),
        )
    return tuple(Share(name=f"{service}/{role}", service=service, roles=(role,)) for role in roles)


def _more_apis(service: str, roles: tuple[str, ...], processes: int) -> tuple[Share, ...]:
    if "api" not in roles:
        return ()
    return tuple(
        Share(name=f"{service}/api-{number}", service=service, roles=("api",)) for number in range(2, processes + 1)
    )


def share_with(all_shares: tuple[Share, ...], name: str) -> Share | None:
    """The process that carries `name`: a process's own name, a service (its api), or "<service>/<role>"."""
    for share in all_shares:
        if share.name == name:
            return share
    service, _, role = name.partition("/")
    for share in all_shares:
        if share.service == service and (role or "api") in share.roles:
            return share
    return None

"""The demo's brand at Siyu: its tenant, its clients, and where this machine remembers them."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from services.console.demo import rules
from services.console.demo.calls import Caller, Wire
from siyu.common.v1 import rule_pb2
from siyu.identity.v1 import client_pb2, client_pb2_grpc, tenant_pb2, tenant_pb2_grpc

PLATFORM_CLIENT = "platform:console"


@dataclass(slots=True, kw_only=True)
class Brand:
    """What a replay left on this machine: enough to call as the brand, and to read its books again.

    `clients` are (id, secret) by what they are for: "admin", a store's or a supplier's id.
    """

    tenant_id: str
    code: str
    clients: dict[str, tuple[str, str]]
    members: dict[int, str] = field(default_factory=dict)
    plan: str = ""
    done: bool = False

    def caller(self, name: str) -> Caller:
        """A client of the brand, to call with."""
        client_id, secret = self.clients[name]
        return Caller(client_id=client_id, secret=secret)

    def save(self, path: Path) -> None:
        """Writes it where only its owner reads: it holds secrets."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(
            json.dumps(
                {
                    "tenant_id": self.tenant_id,
                    "code": self.code,
                    "clients": self.clients,
                    "members": self.members,
                    "plan": self.plan,
                    "done": self.done,
                }
            )
        )

    @classmethod
    def load(cls, path: Path) -> "Brand | None":
        """The brand that was saved, or None."""
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return cls(
            tenant_id=found["tenant_id"],
            code=found["code"],
            clients={name: (pair[0], pair[1]) for name, pair in found["clients"].items()},
            members={int(number): member for number, member in found["members"].items()},
            plan=found["plan"],
            done=found["done"],
        )


async def create_brand(wire: Wire, *, platform_secret: str, code: str, clock_at: datetime) -> Brand:
    """Makes the tenant with its test clock. The same code again answers the same tenant."""
    at = Timestamp()
    at.FromDatetime(clock_at)
    reply = await wire.call(
        wire.stub(tenant_pb2_grpc.TenantServiceStub).CreateTenant,
        tenant_pb2.CreateTenantRequest(
            request_id=f"demo-{code}",
            code=code,
            display_name=rules.BRAND_NAME,
            time_zone=rules.TIME_ZONE,
            currency_code=rules.CURRENCY,
            region_code=rules.REGION,
            test_clock_at=at,
        ),
        caller=Caller(client_id=PLATFORM_CLIENT, secret=platform_secret),
    )
    admin = (reply.admin_client_id, reply.admin_client_secret)
    return Brand(tenant_id=reply.tenant.tenant_id, code=code, clients={"admin": admin})


async def add_client(
    wire: Wire,
    brand: Brand,
    admin: Caller,
    *,
    name: str,
    kind: rule_pb2.ActorKind.ValueType,
    store_id: str = "",
    supplier_id: str = "",
) -> None:
    """Makes a till's or a supplier's client, with the usual scopes of its kind."""
    reply = await wire.call(
        wire.stub(client_pb2_grpc.ClientServiceStub).CreateClient,
        client_pb2.CreateClientRequest(
            request_id=f"client-{name}", display_name=name, kind=kind, store_id=store_id, supplier_id=supplier_id
        ),
        caller=admin,
    )
    brand.clients[name] = (reply.client.client_id, reply.client_secret)

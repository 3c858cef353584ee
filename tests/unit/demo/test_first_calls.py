"""The log-in that a person pastes: its token, or what was wrong in curl's words."""

import asyncio

import pytest

from services.console.demo.brand import Brand
from services.console.demo.first_calls import Showcase, first_calls
from services.console.stack import ports

BRAND = Brand(tenant_id="t", code="journey", clients={"s1": ("till-1", "secret")})
SHOWN = Showcase(member_id="m", store_id="s1", sku="tea")
TOKEN = '{"accessToken":"ey.J-_.x","expiresAt":"2017-03-06T00:00:00Z"}'
WRONG = '{"code":16,"message":"no such client, or not its secret"}'


@pytest.mark.parametrize(
    ("status", "body", "token", "told"),
    [
        pytest.param("200 OK", TOKEN, "ey.J-_.x", "", id="a token"),
        pytest.param("401 Unauthorized", WRONG, "", "curl: (22) The requested URL returned error: 401", id="refused"),
        pytest.param("", "", "", "curl: (7) Failed to connect", id="nobody is there"),
    ],
)
async def test_a_log_in_ends_in_a_token_or_in_what_was_wrong(status: str, body: str, token: str, told: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0) if status else None
    port = server.sockets[0].getsockname()[1] if server else ports.pick(1)[0]
    pasted = first_calls(BRAND, SHOWN, edge=f"127.0.0.1:{port}").split("in this folder:")[1].split("# a member's")[0]
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"{pasted}\necho $TOKEN", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complained = await asyncio.wait_for(process.communicate(), 10)
    if server:
        server.close()
        await server.wait_closed()
    assert said.decode().strip() == token
    assert complained.decode().startswith(told)
    assert len(complained.decode().splitlines()) == bool(told)

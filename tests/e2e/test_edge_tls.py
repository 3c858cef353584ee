"""The edge with a certificate: REST and gRPC over TLS, nothing without it, and a renewed certificate is taken up."""

import asyncio
import ssl
import time
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509

from siyu.loyalty.v1 import points_pb2, points_pb2_grpc
from tests.e2e.certificates import self_signed
from tests.e2e.edge import running_edge

MEMBER = "0199a3c4-7d1e-7000-8000-000000000001"
RENEWED_WITHIN_S = 10.0


def mounted(volume: Path, version: int) -> tuple[Path, Path]:
    """Puts a new certificate where Kubernetes would: a folder per version, and a link that replaces the old one."""
    folder = volume / f"..version_{version}"
    folder.mkdir(parents=True)
    self_signed(folder, serial=version)
    fresh = volume / "..data_tmp"
    fresh.symlink_to(folder.name)
    fresh.replace(volume / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    return volume / "tls.crt", volume / "tls.key"


async def serial_shown(target: str) -> int:
    host, _, port = target.rpartition(":")
    shown = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(shown.encode()).serial_number


async def test_the_edge_over_tls(tmp_path: Path, valkey_url: str) -> None:
    certificate, key = mounted(tmp_path / "tls", 1)
    names = {"SIYU_EDGE_TLS_CERTIFICATE": str(certificate), "SIYU_EDGE_TLS_KEY": str(key)}
    async with running_edge(tmp_path, valkey_url, **names) as edge:
        trusted = certificate.read_bytes()
        secure = f"https://{edge.target}"
        headers = edge.bearer("identity.read loyalty.points.read")
        async with httpx.AsyncClient(base_url=secure, verify=ssl.create_default_context(cafile=certificate)) as http:
            assert (await http.get("/v1/tenant", headers=headers)).status_code == 200
            assert (await http.get("/v1/tenant")).json()["details"][0]["reason"] == "TOKEN_MISSING"

        credentials = grpc.ssl_channel_credentials(root_certificates=trusted)
        async with grpc.aio.secure_channel(edge.target, credentials) as channel:
            request = points_pb2.GetBalanceRequest(member_id=MEMBER, point_currency="points")
            reply = await points_pb2_grpc.PointsServiceStub(channel).GetBalance(
                request, metadata=tuple(headers.items())
            )
            assert reply == points_pb2.GetBalanceResponse()

        with pytest.raises(httpx.TransportError):
            await edge.http.get("/v1/tenant", headers=headers)
        async with httpx.AsyncClient(base_url=secure) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/healthz")

        assert await serial_shown(edge.target) == 1
        mounted(tmp_path / "tls", 2)
        deadline_s = time.monotonic() + RENEWED_WITHIN_S
        while (serial := await serial_shown(edge.target)) == 1 and time.monotonic() < deadline_s:
            await asyncio.sleep(0.1)
        assert serial == 2, "a renewed certificate is taken up without a restart"

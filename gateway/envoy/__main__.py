"""`python -m gateway.envoy --out FILE`: writes Envoy's configuration for the addresses in the environment.

With TLS, a second file beside it tells where the certificate lies."""

import argparse
import sys
from pathlib import Path

import orjson

from gateway.envoy.bootstrap import bootstrap
from gateway.envoy.listener import certificate_told
from gateway.envoy.names import Config
from gateway.settings import EdgeSettings
from services.runtime.settings import Settings, WrongSettingsError, from_environment


def main() -> None:
    """Writes to a file, or to standard output where there is no TLS."""
    parser = argparse.ArgumentParser(prog="python -m gateway.envoy", description=__doc__)
    parser.add_argument("--out", type=Path, help="the file to write; without it, standard output")
    chosen = parser.parse_args()
    try:
        edge, settings = from_environment(EdgeSettings), from_environment(Settings)
    except WrongSettingsError as wrong:
        sys.exit(f"siyu: {wrong}")
    if edge.speaks_tls and chosen.out is None:
        parser.error("with TLS there are two files: say where by --out")
    certificate = chosen.out.absolute().with_suffix(".certificate.json") if edge.speaks_tls else None
    rendered = _as_json(bootstrap(settings, edge, certificate=certificate))
    if chosen.out is None:
        sys.stdout.buffer.write(rendered)
    else:
        chosen.out.write_bytes(rendered)
    if certificate is not None:
        certificate.write_bytes(_as_json(certificate_told(edge)))


def _as_json(config: Config) -> bytes:
    return orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    main()

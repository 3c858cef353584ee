"""`python -m gateway.envoy --out FILE`: writes Envoy's configuration for the addresses in the environment."""

import argparse
import sys
from pathlib import Path

import orjson

from gateway.envoy.bootstrap import bootstrap
from gateway.settings import EdgeSettings
from services.runtime.settings import Settings


def main() -> None:
    """Writes to a file, or to standard output."""
    parser = argparse.ArgumentParser(prog="python -m gateway.envoy", description=__doc__)
    parser.add_argument("--out", type=Path, help="the file to write; without it, standard output")
    chosen = parser.parse_args()
    rendered = orjson.dumps(
        bootstrap(Settings(), EdgeSettings()), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    )
    if chosen.out is None:
        sys.stdout.buffer.write(rendered)
    else:
        chosen.out.write_bytes(rendered)


if __name__ == "__main__":
    main()

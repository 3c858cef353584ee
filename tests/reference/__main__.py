"""Lives the plan, writes what the books must say: `python -m tests.reference --plan plan.json --out expected.json`."""

import argparse
import json
from pathlib import Path

from tests.reference.shop import Shop


def main() -> None:
    """Reads the plan, writes the expected books."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--plan", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    chosen = arguments.parse_args()
    shop = Shop(json.loads(chosen.plan.read_text()))
    shop.live()
    shop.write(chosen.out)


if __name__ == "__main__":
    main()

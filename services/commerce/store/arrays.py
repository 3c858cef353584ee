"""Arrays of arrays: unnest flattens them, so that an inner one travels as the text of a Postgres array."""

from collections.abc import Iterable


def as_text(values: Iterable[int]) -> str:
    """The text form of a bigint[]."""
    return "{" + ",".join(map(str, values)) + "}"

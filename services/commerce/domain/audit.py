"""What an audit finds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: whether it holds, over how many rows, and the first of those that break it."""

    check: str
    ok: bool
    examined: int
    detail: str

"""What a check says."""

from collections.abc import Mapping
from dataclasses import dataclass

Roles = Mapping[str, tuple[str, ...]]
"""The roles of the code by service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a rollout would break: which check, which object, what is wrong and what to do."""

    check: str
    subject: str
    problem: str

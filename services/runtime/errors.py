"""What a caller can be told; everything else is a bug and stays inside.

DomainError
├── Invalid          the request is malformed; nothing is stored
├── Unauthenticated  who is calling?
├── NotAllowed       known caller, not theirs to do
├── Missing          the named thing is not there, or not this tenant's
├── AlreadyExists    the name is taken, or a request id was used for another body
├── Refused          a business precondition fails; the message says what to do
├── Exhausted        a limit or quota; come back after `retry_after_s`
├── Conflict         lost a race; the same call may be tried again at once
├── TimedOut         the deadline passed; the outcome may be unknown: ask, or repeat with the same request id
└── Unavailable      a dependency is down; come back after `retry_after_s`

A service subclasses one level for its named refusals:

    class InsufficientPoints(Refused):
        reason = "INSUFFICIENT_POINTS"
"""

from collections.abc import Mapping
from typing import ClassVar

Violations = tuple[tuple[str, str], ...]


class DomainError(Exception):
    """A refusal with a stable `reason` (UPPER_SNAKE, part of the contract) and string `metadata`."""

    reason: str = "REFUSED"
    storable: ClassVar[bool] = False
    """Whether idempotency may store this refusal as the answer to its request id."""

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        """The message is shown to the caller: no secret and no personal data in it."""
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        if reason is not None:
            self.reason = reason


class Invalid(DomainError):
    """The request can never succeed as written. `violations` are (field path, why) pairs, at least one."""

    reason = "INVALID_FIELD"

    def __init__(
        self,
        message: str = "",
        *,
        field: str = "",
        violations: Violations = (),
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Takes one `field` with the message as its reason, or several `violations`."""
        text = message or "; ".join(f"{path}: {why}" for path, why in violations) or f"{field} is not valid"
        super().__init__(text, reason=reason, metadata=metadata)
        self.violations: Violations = violations or ((field, text),)


class Unauthenticated(DomainError):
    """The caller's credential is absent, expired or not ours."""

    reason = "UNAUTHENTICATED"


class NotAllowed(DomainError):
    """The caller is known and may not do this, or not to this object."""

    reason = "NOT_ALLOWED"


class Missing(DomainError):
    """The named thing does not exist for this tenant; the reason is `<KIND>_NOT_FOUND`."""

    reason = "NOT_FOUND"
    storable = True

    def __init__(
        self,
        message: str = "",
        *,
        kind: str,
        name: str,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`kind` is a noun such as "order" or "point currency"; `name` is what the caller called it."""
        if reason is None and self.reason == Missing.reason:
            reason = f"{kind.upper().replace(' ', '_').replace('-', '_')}_NOT_FOUND"
        super().__init__(message or f"no {kind} {name!r}", reason=reason, metadata=metadata)
        self.kind = kind
        self.name = name


class AlreadyExists(DomainError):
    """The name is taken; for reason REQUEST_ID_REUSED, the request id was used with another body."""

    reason = "ALREADY_EXISTS"
    storable = True


class Refused(DomainError):
    """A business precondition fails. `subject` names what stands in the way."""

    reason = "REFUSED"
    storable = True

    def __init__(
        self,
        message: str,
        *,
        subject: str = "",
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """The message says what the caller can do about it."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.subject = subject


class Exhausted(DomainError):
    """A limit, quota or queue is full."""

    reason = "EXHAUSTED"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        subject: str = "",
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`subject` names the limit; `retry_after_s` is when to come back."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after_s = retry_after_s
        self.subject = subject


class Conflict(DomainError):
    """The call lost a race and changed nothing; the same call may be tried again."""

    reason = "CONFLICT"


class TimedOut(DomainError):
    """The deadline passed. The outcome may be unknown: repeat with the same request id."""

    reason = "DEADLINE_EXCEEDED"


class Unavailable(DomainError):
    """A dependency does not answer. A mutating call may or may not have happened: repeat with the same request id."""

    reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """`retry_after_s` is when to come back."""
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after_s = retry_after_s

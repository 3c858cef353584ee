"""Structured logs: one JSON object a line with the trace id, and no personal data.

Values of a few names never reach a log, whoever writes them: a phone number in a log is a leak that lasts for years.
"""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog

HIDDEN = frozenset(
    {
        "phone",
        "value",
        "identifier",
        "display_name",
        "token",
        "secret",
        "client_secret",
        "authorization",
        "code",
        "codes",
    }
)

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace of the call that is being served; logs and refusals carry it."""


def configure(*, service: str, level: str = "INFO") -> None:
    """Sets up logging for a process; plain text on a terminal, JSON otherwise."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_trace,
            _without_personal_data,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _with_trace(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    trace = trace_id.get()
    if trace:
        event["trace_id"] = trace
    return event


def _without_personal_data(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in HIDDEN.intersection(event):
        event[name] = "[hidden]"
    return event

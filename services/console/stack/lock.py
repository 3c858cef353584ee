"""One stack per state directory."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from services.console.stack.refusals import AlreadyRunning


@contextmanager
def held_lock(directory: Path, *, say: Callable[[str], None]) -> Iterator[bool]:
    """Holds the directory's lock; yields whether its last holder died without letting go.

    The kernel lets go for the dead, so a stale lock stops nobody. Raises AlreadyRunning while somebody lives."""
    file = directory / "lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        left_by = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(pid=int(left_by or 0), directory=str(directory)) from None
        if left_by:
            say(f"taking over the lock of process {left_by}, which ended without stopping its servers in order")
        _write(descriptor, f"{os.getpid()}\n")
        yield bool(left_by)
        _write(descriptor, "")
    finally:
        os.close(descriptor)


def holder(directory: Path) -> int | None:
    """The process that holds the directory's lock now, or None."""
    file = directory / "lock"
    if not file.exists():
        return None
    descriptor = os.open(file, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(descriptor, 32, 0).decode().strip() or 0)
    finally:
        os.close(descriptor)
    return None


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)

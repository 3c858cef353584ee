"""What processes cost, read from /proc."""

import os
import subprocess
import sys
import time

import pytest

from services.console.demo.cpu import OURSELVES, PROC, cpu_seconds

pytestmark = pytest.mark.skipif(not PROC.exists(), reason="no /proc here")
BUSY = (
    "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass\nprint('done', flush=True)\n"
)


def test_the_work_of_descendants_counts_for_the_named_process() -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}])"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        deadline = time.monotonic() + 10
        while cpu_seconds({"tree": process.pid})["tree"] < 0.3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 0.3 <= cpu_seconds({"tree": process.pid})["tree"] < 5.0
        process.communicate()


def test_our_own_work_is_told_and_a_stranger_is_not() -> None:
    spent = cpu_seconds({"gone": 2**22 + 1})
    assert spent[OURSELVES] > 0
    assert "gone" not in spent
    assert "us" in cpu_seconds({"us": os.getpid()})

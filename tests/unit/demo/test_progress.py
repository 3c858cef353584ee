"""What is told while the demonstration's work goes on."""

import io

import pytest
from rich.console import Console

from services.console.demo import progress


@pytest.mark.parametrize(
    ("took_s", "done", "told"),
    [
        pytest.param(6.0, 0, "took 6 s, left not known yet;", id="nothing yet"),
        pytest.param(10.0, 25, "took 10 s, left about 30 s;", id="a quarter"),
        pytest.param(40.0, 100, "took 40 s, left about 0 s;", id="all of it"),
    ],
)
def test_times_have_names(took_s: float, done: int, told: str) -> None:
    assert progress.told_times(took_s, done=done, total=100) == told


def test_a_terminal_names_them_too() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=160)
    with progress.bar(console, title="sales", total=2) as bar:
        bar.advance()
    assert "took" in written.getvalue()
    assert "left about" in written.getvalue()

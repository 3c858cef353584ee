"""The SQL that the revisions run: the first one's tables, and the ledger's functions as they are now.

Functions are code, and their files say what they are today. A revision changes tables and then calls
`replace_functions`, so that a schema that is made anew and one that was migrated have the same ones; it drops those
that it gives other arguments.
"""

from pathlib import Path

from alembic import op

HERE = Path(__file__).parent
FUNCTIONS = ("ledger", "batches", "grants", "holds", "refunds", "merges")


def replace_functions() -> None:
    """Makes all functions as their files say."""
    # an early revision makes functions whose columns a later one adds
    op.execute("SET LOCAL check_function_bodies = off")
    for name in FUNCTIONS:
        run(f"functions/{name}.sql")


def run(file: str) -> None:
    """Runs the statements of a file of this folder."""
    for statement in _statements((HERE / file).read_text()):
        # the driver prepares what it runs, so no colon may look like a parameter to SQLAlchemy
        op.get_bind().exec_driver_sql(statement)


def _statements(script: str) -> list[str]:
    """The script's statements: a semicolon at a line's end closes one, unless a function's body is open."""
    statements: list[str] = []
    lines: list[str] = []
    for line in script.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if line.rstrip().endswith(";") and text.count("$$") % 2 == 0:
            statements.append(text)
            lines = []
    return statements

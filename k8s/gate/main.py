"""`siyu gate check`: reads a cluster or a folder and says what a rollout would break."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from k8s.gate.checks import findings
from k8s.gate.manifests import UnreadableError, from_cluster, from_files
from services.console.stack.roles import ROLES

UNREADABLE = 2


def main(*, files: Path | None, namespace: str) -> int:
    """Prints the findings. Returns 0 if there are none, 1 if there are, 2 if nothing could be read."""
    console = Console(highlight=False)
    try:
        manifests = from_files(files) if files else from_cluster(namespace)
    except UnreadableError as error:
        console.print(f"gate: {error}")
        return UNREADABLE
    found = findings(manifests, ROLES)
    if not found:
        console.print(f"gate: {len(manifests.objects)} objects; a rollout would break nothing that is checked here")
        return 0
    table = Table("check", "object", "problem", title=f"{len(found)} findings")
    for each in found:
        table.add_row(each.check, each.subject, each.problem)
    console.print(table)
    return 1

"""What Deployments and Jobs say of their pods."""

import math
from collections.abc import Iterator
from typing import Any

from k8s.gate.manifests import Manifest


def arguments_of(service: str, role: str) -> list[str]:
    """The image's arguments that start a role, e.g. [run, loyalty, worker, --queue, accrual]."""
    kind, _, queue = role.partition(":")
    return ["run", service, kind, "--queue", queue] if queue else ["run", service, kind]


def containers(workload: Manifest) -> list[Manifest]:
    """The containers of a Deployment or Job, without its init containers."""
    found: list[Manifest] = workload["spec"]["template"]["spec"].get("containers", [])
    return found


def all_containers(workload: Manifest) -> list[Manifest]:
    """The containers of a Deployment or Job, the init containers first."""
    first: list[Manifest] = workload["spec"]["template"]["spec"].get("initContainers", [])
    return [*first, *containers(workload)]


def value_of(container: Manifest, name: str) -> str:
    """The literal value of a container's variable, or ''."""
    return next((str(each.get("value", "")) for each in container.get("env", []) if each["name"] == name), "")


def secrets_of(container: Manifest) -> set[tuple[str, str]]:
    """The (secret, key) of each variable that comes from one."""
    return {source for variable in container.get("env", []) for source in sources(variable)}


def sources(variable: Manifest) -> Iterator[tuple[str, str]]:
    """The (secret, key) that the variable comes from, if it does."""
    if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
        yield reference["name"], reference["key"]


def arguments(workload: Manifest) -> list[list[str]]:
    """The arguments of each container."""
    return [container.get("args", []) for container in containers(workload)]


def selects(selecting: Manifest, deployment: Manifest) -> bool:
    """Whether a Service, a budget or a Deployment means the Deployment's pods."""
    selector: dict[str, Any] = selecting["spec"].get("selector") or {}
    wanted = selector.get("matchLabels", selector)
    labels = deployment["spec"]["template"]["metadata"].get("labels", {})
    return bool(wanted) and wanted.items() <= labels.items()


def listens_at(container: Manifest) -> int | None:
    """The port that a role of ours listens at, or None for a stranger's container."""
    port = value_of(container, "SIYU_LISTEN").rpartition(":")[2]
    return int(port) if port.isdigit() else None


def number_of(container: Manifest, port: object) -> object:
    """The number of a port that is given by name or number."""
    named = {each.get("name"): each.get("containerPort") for each in container.get("ports", [])}
    return named.get(str(port), port)


def declared(container: Manifest) -> set[object]:
    """The numbers of the ports that the container declares."""
    return {each.get("containerPort") for each in container.get("ports", [])}


def answers(deployment: Manifest, target: object) -> bool:
    """Whether something in the pod listens there; what a role declares beside its own port is its metrics."""
    for container in containers(deployment):
        port = listens_at(container)
        if number_of(container, target) in (declared(container) if port is None else {port}):
            return True
    return False


def protocol_of(container: Manifest) -> str:
    """How a role of ours is asked whether it is ready."""
    return "httpGet" if container.get("args", [])[:2] == ["run", "gateway"] else "grpc"


def may_go(budget: Manifest, pods: int) -> int:
    """How many of so many pods a PodDisruptionBudget lets go; per cent are rounded up, as Kubernetes does."""
    spec = budget["spec"]
    if "maxUnavailable" in spec:
        return _share(spec["maxUnavailable"], pods)
    return pods - _share(spec.get("minAvailable", 0), pods)


def _share(value: int | str, pods: int) -> int:
    text = str(value)
    return math.ceil(int(text[:-1]) * pods / 100) if text.endswith("%") else int(text)

"""What lets a rollout hang, or send calls to whom they are not for, though each object by itself looks right."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from gateway.settings import EdgeSettings
from k8s.gate.finding import Finding, Roles
from k8s.gate.manifests import Manifest, Manifests, name_of
from k8s.gate.workloads import all_containers, arguments_of, containers, listens_at, selects
from services.console.stack.roles import needed
from services.runtime.settings import Settings


def selectors(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """Each Deployment means its own pods and no other's, and has one budget and one scaler."""
    deployments = list(manifests.of("Deployment"))
    for deployment in deployments:
        name = name_of(deployment)
        others = [name_of(each) for each in deployments if each is not deployment and selects(deployment, each)]
        if not selects(deployment, deployment):
            yield Finding(check="selectors", subject=name, problem="its selector does not match its own pods")
        if others:
            problem = f"its selector matches the pods of {', '.join(others)} as well"
            yield Finding(check="selectors", subject=name, problem=problem)
        budgets = [name_of(each) for each in manifests.of("PodDisruptionBudget") if selects(each, deployment)]
        if len(budgets) > 1:
            problem = f"{', '.join(budgets)} all protect it: Kubernetes then evicts none, and no node can be drained"
            yield Finding(check="headroom", subject=name, problem=problem)
        scalers = [name_of(each) for each in _scalers(manifests, name)]
        if len(scalers) > 1:
            yield Finding(check="scaling", subject=name, problem=f"{', '.join(scalers)} scale it against each other")


def addresses(manifests: Manifests, roles: Roles) -> Iterator[Finding]:
    """The Service at each address leads to the role that is meant, and to no other."""
    for key, address in _configuration(manifests).items():
        service = key.removeprefix("SIYU_").removesuffix("_ADDRESS").lower()
        found = manifests.named("Service", str(address).rpartition(":")[0])
        if not key.endswith("_ADDRESS") or service not in roles or found is None:
            continue
        called = arguments_of(service, "edge" if "edge" in roles[service] else "api")
        for each in manifests.of("Deployment"):
            if selects(found, each) and not any(called == it.get("args") for it in containers(each)):
                problem = f"calls to {service} would go to {name_of(each)}, which is something else"
                yield Finding(check="ports", subject=name_of(found), problem=problem)


def network(manifests: Manifests, roles: Roles) -> Iterator[Finding]:
    """Where policies deny what is not said, calls to a role are let in at its port, and let out by every other role."""
    ours = [(each, it) for each in manifests.of("Deployment") for it in containers(each) if wanted_of(it, roles)]
    for called, container in ours:
        port = listens_at(container)
        if port is None or not any(selects(service, called) for service in manifests.of("Service")):
            continue
        if not _passes(manifests, called, port, direction="Ingress"):
            problem = f"no NetworkPolicy lets calls in at port {port}"
            yield Finding(check="network", subject=name_of(called), problem=problem)
        shut = [name_of(caller) for caller, _ in ours if not _passes(manifests, caller, port, direction="Egress")]
        if shut:
            problem = f"no NetworkPolicy lets calls out to its port {port}, of {len(shut)} roles ({shut[0]} is one)"
            yield Finding(check="network", subject=name_of(called), problem=problem)


def scaling(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """What scales by use has something to measure it by, room to scale, and nobody who sets the number back."""
    for deployment in manifests.of("Deployment"):
        name = name_of(deployment)
        for scaler in _scalers(manifests, name):
            spec = scaler["spec"]
            for resource in _measured(scaler):
                if any(resource not in _requests(each) for each in containers(deployment)):
                    problem = f"scaled by its use of {resource}, but a container requests none: it would never scale"
                    yield Finding(check="scaling", subject=name, problem=problem)
            if spec.get("maxReplicas", 0) < spec.get("minReplicas", 1):
                yield Finding(check="scaling", subject=name_of(scaler), problem="maxReplicas is below minReplicas")
            # in a cluster the scaler itself has set it
            if not manifests.is_live and "replicas" in deployment["spec"]:
                problem = f"each apply would set it back to {deployment['spec']['replicas']} pods: leave replicas out"
                yield Finding(check="scaling", subject=name, problem=problem)
        surge = deployment["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", "25%")
        if str(surge) in {"0", "0%"}:
            yield Finding(
                check="drains", subject=name, problem="maxSurge is 0: no new pod may start before an old ends"
            )


def told(manifests: Manifests, roles: Roles) -> Iterator[Finding]:
    """A role is told all that it does not start without, where the others are, and only values that can be."""
    for configuration in manifests.of("ConfigMap"):
        for variable, problem in _refused(configuration.get("data") or {}):
            if variable:
                yield Finding(check="settings", subject=name_of(configuration), problem=f"{variable}: {problem}")
    lacking: dict[str, list[str]] = defaultdict(list)
    for deployment in manifests.of("Deployment"):
        name = name_of(deployment)
        for container in all_containers(deployment):
            absent = _absent(manifests, container)
            for each in absent:
                yield Finding(
                    check="settings", subject=name, problem=f"it needs the ConfigMap {each}, which is not there"
                )
            values = _values(manifests, container)
            own = {each["name"] for each in container.get("env", [])}
            for variable, problem in _refused(values):
                if not variable or variable in own:
                    yield Finding(check="settings", subject=name, problem=f"{variable} {problem}".strip())
            for variable in sorted(wanted_of(container, roles) - values.keys()) if not absent else ():
                lacking[variable].append(name)
    for variable, names in lacking.items():
        subject = names[0] if len(names) == 1 else f"{len(names)} Deployments"
        yield Finding(check="settings", subject=subject, problem=f"{variable} is not set: what needs it would not work")


def _scalers(manifests: Manifests, name: str) -> list[Manifest]:
    scalers = manifests.of("HorizontalPodAutoscaler")
    return [each for each in scalers if each["spec"].get("scaleTargetRef", {}).get("name") == name]


def _measured(scaler: Manifest) -> list[str]:
    """The resources whose use, as a share of what is requested, it scales by."""
    measured = (
        each.get("resource", {}) for each in scaler["spec"].get("metrics", []) if each.get("type") == "Resource"
    )
    return [each["name"] for each in measured if each.get("target", {}).get("type") == "Utilization"]


def _requests(container: Manifest) -> Mapping[str, str]:
    # without a request Kubernetes takes the limit for it
    resources = container.get("resources", {})
    return {**resources.get("limits", {}), **resources.get("requests", {})}


def _configuration(manifests: Manifests) -> Mapping[str, str]:
    return (manifests.named("ConfigMap", "siyu-settings") or {}).get("data") or {}


def _passes(manifests: Manifests, deployment: Manifest, port: int, *, direction: str) -> bool:
    """Whether a policy lets something pass at the port, or none means these pods. From and to whom is not looked at."""
    labels = deployment["spec"]["template"]["metadata"].get("labels", {})
    meant = [
        policy["spec"]
        for policy in manifests.of("NetworkPolicy")
        if direction in policy["spec"].get("policyTypes", ["Ingress"])
        and (policy["spec"].get("podSelector", {}).get("matchLabels") or {}).items() <= labels.items()
    ]
    rules = [rule for spec in meant for rule in spec.get(direction.lower()) or []]
    return not meant or any(
        not rule.get("ports") or port in {each.get("port") for each in rule["ports"]} for rule in rules
    )


def _absent(manifests: Manifests, container: Manifest) -> list[str]:
    """The ConfigMaps without which Kubernetes does not start the container, and which are not there."""
    wanted = (each.get("configMapRef", {}) for each in container.get("envFrom", []))
    names = [each["name"] for each in wanted if each and not each.get("optional")]
    return [name for name in names if manifests.named("ConfigMap", name) is None]


def wanted_of(container: Manifest, roles: Roles) -> set[str]:
    """The variables that the role in the container must be told; none for a stranger."""
    arguments = container.get("args", [])
    if arguments[:1] != ["run"] or len(arguments) < 3 or arguments[1] not in roles:
        return set()
    return {*needed(arguments[1], arguments[2:3]), *(f"SIYU_{each.upper()}_ADDRESS" for each in roles)}


def _values(manifests: Manifests, container: Manifest) -> dict[str, str | None]:
    """What the container is told, by variable; None for what a secret or a field holds."""
    values: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        found = manifests.named("ConfigMap", source.get("configMapRef", {}).get("name", "")) or {}
        values |= found.get("data") or {}
    return values | {each["name"]: each.get("value") for each in container.get("env", [])}


def _refused(values: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """The variables that the code would not take, and why: it ends at its start. '' for several that don't agree."""
    literal = {name: value for name, value in values.items() if value is not None}
    for kind in (Settings, EdgeSettings):
        aliases = {str(field.validation_alias) for field in kind.model_fields.values()}
        try:
            kind.model_validate({name: value for name, value in literal.items() if name in aliases})
        except ValidationError as wrong:
            told = ((".".join(map(str, each["loc"])), each["msg"]) for each in wrong.errors())
            # the gate's own environment is looked at as well, and is nobody's business here
            yield from ((name, why) for name, why in told if name in literal or not name)

"""What a rollout would break, told before it does: each check is a function from manifests to findings."""

import base64
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import parse_qs, urlsplit

from gateway.settings import EdgeSettings
from k8s.gate import rollout
from k8s.gate.finding import Finding, Roles
from k8s.gate.manifests import Manifest, Manifests, name_of
from k8s.gate.workloads import (
    all_containers,
    answers,
    arguments,
    arguments_of,
    containers,
    declared,
    listens_at,
    may_go,
    number_of,
    protocol_of,
    secrets_of,
    selects,
    sources,
    value_of,
)
from services.runtime.settings import SERVICES, Settings

DRAIN_GRACE_S = 5
ASKS = ("grpc", "httpGet", "tcpSocket")
# read by identity beside services.runtime.settings
FURTHER_SETTINGS = frozenset({"SIYU_ROOT_SECRET"})
DATABASE_URL = "DATABASE_URL"
PREFIXES = ("SIYU_", "DATABASE_", "REDIS_")


def findings(manifests: Manifests, roles: Roles) -> tuple[Finding, ...]:
    """Every finding, by check."""
    checks: tuple[Callable[[Manifests, Roles], Iterable[Finding]], ...] = (
        missing_roles,
        ports,
        probes,
        headroom,
        drains,
        migrations,
        settings,
        secrets,
        logins,
        rollout.selectors,
        rollout.addresses,
        rollout.network,
        rollout.scaling,
        rollout.told,
    )
    return tuple(found for check in checks for found in check(manifests, roles))


def missing_roles(manifests: Manifests, roles: Roles) -> Iterator[Finding]:
    """Every role of the code has one Deployment."""
    running = [container.get("args", []) for each in manifests.of("Deployment") for container in containers(each)]
    for service, names in roles.items():
        for role in names:
            started = running.count(arguments_of(service, role))
            if started != 1:
                problem = "no Deployment runs it" if started == 0 else f"{started} Deployments run it; one must"
                yield Finding(check="roles", subject=f"{service} {role}", problem=problem)


def ports(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """A role listens where its Service and its callers look for it."""
    for deployment in manifests.of("Deployment"):
        for container in containers(deployment):
            port = listens_at(container)
            if port is not None and port not in declared(container):
                problem = f"SIYU_LISTEN is {value_of(container, 'SIYU_LISTEN')}, but that port is not declared"
                yield Finding(check="ports", subject=name_of(deployment), problem=problem)
    for service in manifests.of("Service"):
        behind = [each for each in manifests.of("Deployment") if selects(service, each)]
        if not behind and service["spec"].get("selector"):
            yield Finding(check="ports", subject=name_of(service), problem="its selector matches no Deployment")
        for entry in service["spec"].get("ports", []):
            target = entry.get("targetPort", entry.get("port"))
            for each in behind:
                if not answers(each, target):
                    problem = f"it sends calls to {name_of(each)}, which does not listen at {target}"
                    yield Finding(check="ports", subject=name_of(service), problem=problem)
    configuration = manifests.named("ConfigMap", "siyu-settings") or {}
    for key, address in configuration.get("data", {}).items():
        if not key.endswith("_ADDRESS"):
            continue
        host, _, port = address.rpartition(":")
        found = manifests.named("Service", host)
        if found is None or port not in {str(each.get("port")) for each in found["spec"].get("ports", [])}:
            yield Finding(check="ports", subject=key, problem=f"no Service answers at {address}")


def probes(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """Every container has readiness and liveness, and is asked where it listens; liveness asks no dependency."""
    for deployment in manifests.of("Deployment"):
        for container in containers(deployment):
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(name)
                problems = _wrong_probe(container, name, probe) if probe else [f"{name} is missing"]
                # without a probe of its start a container is simply asked the others at once
                if probe or name != "startupProbe":
                    yield from (
                        Finding(check="probes", subject=name_of(deployment), problem=problem) for problem in problems
                    )


def _wrong_probe(container: Manifest, name: str, probe: Manifest) -> Iterator[str]:
    kind = next((each for each in ASKS if each in probe), "exec")
    asked = number_of(container, probe.get(kind, {}).get("port"))
    port = listens_at(container)
    if asked not in declared(container):
        yield f"{name} asks port {asked}, which is not declared"
    elif port is not None and asked != port:
        yield f"{name} asks port {asked}, and the role listens at {port}: no new pod would get ready"
    if name == "livenessProbe" and kind != "tcpSocket":
        yield "liveness must ask the process alone (tcpSocket), or a dependency that is away kills it"
    elif port is not None and kind not in {"tcpSocket", protocol_of(container)}:
        yield f"{name} asks by {kind}, and the role answers {protocol_of(container)}: no new pod would get ready"


def headroom(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """A node can be drained and a pod replaced without the role going away."""
    for deployment in manifests.of("Deployment"):
        name = name_of(deployment)
        budget = next((each for each in manifests.of("PodDisruptionBudget") if selects(each, deployment)), None)
        scaler = next(
            (
                each
                for each in manifests.of("HorizontalPodAutoscaler")
                if each["spec"].get("scaleTargetRef", {}).get("name") == name
            ),
            None,
        )
        least = scaler["spec"].get("minReplicas", 1) if scaler else deployment["spec"].get("replicas", 1)
        if scaler is None:
            yield Finding(check="headroom", subject=name, problem="no HorizontalPodAutoscaler scales it")
        if least < 2:
            yield Finding(
                check="headroom", subject=name, problem=f"{least} pod at least: none is left while one is replaced"
            )
        if budget is None:
            yield Finding(check="headroom", subject=name, problem="no PodDisruptionBudget protects it")
        elif may_go(budget, least) < 1:
            yield Finding(
                check="headroom",
                subject=name,
                problem="its PodDisruptionBudget lets no pod go: a node can't be drained",
            )
        elif manifests.is_live and budget.get("status", {}).get("disruptionsAllowed", 0) < 1:
            healthy = budget.get("status", {}).get("currentHealthy", 0)
            yield Finding(
                check="headroom", subject=name, problem=f"{healthy} healthy pods: no disruption is allowed now"
            )


def drains(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """Kubernetes waits longer than a role drains, and starts the new pod before it ends the old one."""
    for deployment in manifests.of("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        grace_s = pod.get("terminationGracePeriodSeconds", 30)
        for container in containers(deployment):
            drain_s = float(value_of(container, "SIYU_DRAIN_S") or 0)
            if grace_s < drain_s + DRAIN_GRACE_S:
                problem = f"killed after {grace_s} s, but it drains for {drain_s:g} s and then ends its calls"
                yield Finding(check="drains", subject=name_of(deployment), problem=problem)
        rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        if str(rolling.get("maxUnavailable", "25%")) not in {"0", "0%"}:
            yield Finding(
                check="drains", subject=name_of(deployment), problem="maxUnavailable must be 0: the new pod first"
            )


def migrations(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """Each schema's migration belongs to the same build and, in a cluster, has run."""
    for service in SERVICES:
        jobs = [each for each in manifests.of("Job") if ["migrate", service] in arguments(each)]
        if not jobs:
            yield Finding(check="migrations", subject=service, problem="no Job migrates its schema")
            continue
        images = _images(each for each in manifests.of("Deployment") if _runs(each, service))
        for job in jobs:
            wanted = _images([job])
            if images and wanted != images:
                problem = f"the Job's image {_said(wanted)} is not the roles' {_said(images)}"
                yield Finding(check="migrations", subject=name_of(job), problem=problem)
            if manifests.is_live and not job.get("status", {}).get("succeeded"):
                yield Finding(
                    check="migrations", subject=name_of(job), problem="has not succeeded: the schema may lag behind"
                )


def settings(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """Every variable that is set is one that the code reads."""
    fields = (*Settings.model_fields.values(), *EdgeSettings.model_fields.values())
    known = {str(field.validation_alias) for field in fields} | FURTHER_SETTINGS
    for configuration in manifests.of("ConfigMap"):
        for key in configuration.get("data", {}):
            if key.startswith(PREFIXES) and key not in known:
                yield Finding(check="settings", subject=name_of(configuration), problem=f"nothing reads {key}")
    for deployment in manifests.of("Deployment"):
        for container in all_containers(deployment):
            for variable in container.get("env", []):
                if variable["name"].startswith(PREFIXES) and variable["name"] not in known:
                    yield Finding(
                        check="settings", subject=name_of(deployment), problem=f"nothing reads {variable['name']}"
                    )


def secrets(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """In a cluster: every secret that a pod refers to is there, with its key."""
    if not manifests.is_live:
        return
    workloads = (*manifests.of("Deployment"), *manifests.of("Job"))
    wanted = {told for each in workloads for container in all_containers(each) for told in secrets_of(container)}
    for name, key in sorted(wanted):
        secret = manifests.named("Secret", name)
        if secret is None or key not in (secret.get("data") or {}):
            yield Finding(check="secrets", subject=name, problem=f"the key {key} is not there: pods would not start")


def logins(manifests: Manifests, _roles: Roles) -> Iterator[Finding]:
    """Migrations alone know the database's admin: a role logs in as its own, and what it can't read can't leak."""
    jobs = [each for each in manifests.of("Job") if any(args[:1] == ["migrate"] for args in arguments(each))]
    admins = {source for each in jobs for container in containers(each) for source in _database_of(container)}
    for deployment in manifests.of("Deployment"):
        for container in all_containers(deployment):
            if admins & secrets_of(container):
                problem = "it is given the URL that migrations log in with: a role needs one that names no user"
                yield Finding(check="logins", subject=name_of(deployment), problem=problem)
            if _names_user(value_of(container, DATABASE_URL)):
                yield Finding(check="logins", subject=name_of(deployment), problem=f"its {DATABASE_URL} names a user")
    told = {
        source
        for each in manifests.of("Deployment")
        for container in all_containers(each)
        for source in _database_of(container)
    }
    for name, key in sorted(told - admins):
        if _names_user(_secret_value(manifests, name, key)):
            problem = f"the URL in its key {key} names a user, and every role reads it: leave user and password out"
            yield Finding(check="logins", subject=name, problem=problem)
    for name, key in sorted(admins):
        url = _secret_value(manifests, name, key)
        if url and not _names_user(url):
            problem = f"the URL in its key {key} names no user: migrations log in as the database's admin"
            yield Finding(check="logins", subject=name, problem=problem)


def _database_of(container: Manifest) -> set[tuple[str, str]]:
    """Where DATABASE_URL comes from, if it is a secret."""
    return {source for each in container.get("env", []) if each["name"] == DATABASE_URL for source in sources(each)}


def _secret_value(manifests: Manifests, name: str, key: str) -> str:
    """What the key holds, or '': a folder has no secrets, and the check of secrets tells one that is absent."""
    encoded = ((manifests.named("Secret", name) or {}).get("data") or {}).get(key, "")
    return base64.b64decode(encoded).decode(errors="replace")


def _names_user(url: str) -> bool:
    parts = urlsplit(url)
    return "@" in parts.netloc or "user" in parse_qs(parts.query)


def _runs(deployment: Manifest, service: str) -> bool:
    return any(arguments[:2] == ["run", service] for arguments in arguments(deployment))


def _images(workloads: Iterable[Manifest]) -> frozenset[str]:
    return frozenset(container.get("image", "") for each in workloads for container in containers(each))


def _said(images: frozenset[str]) -> str:
    return ", ".join(sorted(images))

"""The manifests render offline, are valid by Kubernetes' own types, and agree with the code."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kubernetes import client

from k8s.gate.checks import arguments_of
from k8s.gate.manifests import Manifests, from_files, name_of
from services.console.audit import AUDITOR
from services.console.demo.brand import PLATFORM_CLIENT
from services.console.stack.roles import ROLES, needed
from services.console.stack.secrets import installation_secret
from services.identity import main as identity
from services.runtime.settings import Settings
from siyu.identity.v1 import tenant_pb2

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "k8s"
TENANT = "0199a3c4-7d1e-7000-8000-00000000000a"
OVERLAYS = sorted(path for path in (K8S / "overlays").iterdir())
MODELS = {
    "Deployment": client.V1Deployment, "Service": client.V1Service, "ConfigMap": client.V1ConfigMap,
    "Job": client.V1Job, "HorizontalPodAutoscaler": client.V2HorizontalPodAutoscaler, "Namespace": client.V1Namespace,
    "PodDisruptionBudget": client.V1PodDisruptionBudget, "NetworkPolicy": client.V1NetworkPolicy,
    "ServiceAccount": client.V1ServiceAccount, "CronJob": client.V1CronJob,
}  # fmt: skip


@cache
def rendered(overlay: Path) -> Manifests:
    return from_files(overlay)


def unknown_fields(value: Any, type_name: str, path: str) -> Iterator[str]:
    """What the API server would refuse: fields that the type does not have, and values of the wrong type."""
    if listed := re.fullmatch(r"[Ll]ist\[(.+)\]", type_name):
        if not isinstance(value, list):
            yield f"{path} must be a list"
            return
        for index, each in enumerate(value):
            yield from unknown_fields(each, listed[1], f"{path}[{index}]")
    elif mapped := re.fullmatch(r"[Dd]ict[\[(]str, (.+)[\])]", type_name):
        for key, each in value.items():
            yield from unknown_fields(each, mapped[1], f"{path}.{key}")
    elif model := getattr(client, type_name, None):
        if not isinstance(value, dict):
            yield f"{path} must be an object"
            return
        by_json = {json: name for name, json in model.attribute_map.items()}
        for key, each in value.items():
            if key not in by_json:
                yield f"{path}.{key} is not a field of {type_name}"
            else:
                yield from unknown_fields(each, model.openapi_types[by_json[key]], f"{path}.{key}")
    elif type_name == "str" and not isinstance(value, str):
        yield f"{path} must be a string, not {value!r}"
    elif type_name == "int" and not isinstance(value, int):
        yield f"{path} must be a number, not {value!r}"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_every_field_is_one_that_kubernetes_knows(overlay: Path) -> None:
    for manifest in rendered(overlay).objects:
        model = MODELS[manifest["kind"]]
        assert list(unknown_fields(manifest, model.__name__, manifest["kind"])) == []


def test_the_validation_finds_a_planted_fault() -> None:
    faulty = {"kind": "Service", "spec": {"ports": [{"port": 1, "targetPorts": 2}], "selector": {"a": 1}}}
    assert list(unknown_fields(faulty, "V1Service", "Service")) == [
        "Service.spec.ports[0].targetPorts is not a field of V1ServicePort",
        "Service.spec.selector.a must be a string, not 1",
    ]


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_each_role_of_the_code_is_one_deployment_with_its_own_scaling(overlay: Path) -> None:
    manifests = rendered(overlay)
    started = [each["spec"]["template"]["spec"]["containers"][0].get("args") for each in manifests.of("Deployment")]
    roles = [arguments_of(service, role) for service, names in ROLES.items() for role in names]
    assert sorted(map(str, roles)) == sorted(str(each) for each in started if each and each[0] == "run")
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in manifests.of("HorizontalPodAutoscaler")}
    assert scaled == {name_of(each) for each in manifests.of("Deployment")}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_pods_are_restricted(overlay: Path) -> None:
    for pod in pods(overlay):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert security["readOnlyRootFilesystem"] is True
            assert "memory" in container["resources"]["limits"]


def pods(overlay: Path) -> list[dict[str, Any]]:
    workloads = [each for kind in ("Deployment", "Job") for each in rendered(overlay).of(kind)]
    workloads += [each["spec"]["jobTemplate"] for each in rendered(overlay).of("CronJob")]
    return [each["spec"]["template"]["spec"] for each in workloads]


def secret_of(container: dict[str, Any], variable: str) -> str:
    """The secret that a container's variable comes from, or ''."""
    found: dict[str, Any] = next((each for each in container.get("env", []) if each["name"] == variable), {})
    name: str = found.get("valueFrom", {}).get("secretKeyRef", {}).get("name", "")
    return name


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_the_root_secret_is_where_the_code_reads_it_and_nowhere_else(overlay: Path) -> None:
    reading = [
        arguments_of("identity", role.name)
        for role in identity.ROLES
        if "IdentitySettings)" in inspect.getsource(role.start)
    ]
    assert len(reading) < len(identity.ROLES), "least privilege"
    given = [
        container["args"]
        for pod in pods(overlay)
        for container in pod["containers"]
        if secret_of(container, "SIYU_ROOT_SECRET")
    ]
    assert sorted(given) == sorted(reading)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_a_role_is_given_all_that_it_does_not_start_without(overlay: Path) -> None:
    for pod in pods(overlay):
        for container in pod["containers"]:
            arguments = container.get("args", [])
            if arguments[:1] == ["run"]:
                names = {each["name"] for each in container["env"]}
                assert names >= set(needed(arguments[1], arguments[2:3])), arguments


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_who_needs_no_database_can_reach_none(overlay: Path) -> None:
    for pod in pods(overlay):
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            arguments = container.get("args", [])
            is_role = arguments[:1] == ["run"] and "DATABASE_URL" in needed(arguments[1], arguments[2:3])
            told = {each["name"] for each in container.get("env", [])} & {"DATABASE_URL", "SIYU_ROLE_PASSWORD"}
            assert bool(told) == (is_role or arguments[:1] == ["migrate"]), arguments


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_migrations_alone_are_told_of_the_databases_admin(overlay: Path) -> None:
    for pod in pods(overlay):
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            arguments = container.get("args", [])
            secrets = {secret_of(container, each["name"]) for each in container.get("env", [])}
            assert ("siyu-database-admin" in secrets) == (arguments[:1] == ["migrate"]), arguments


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_a_migration_stays_for_the_gate_to_see(overlay: Path) -> None:
    for job in rendered(overlay).of("Job"):
        assert "ttlSecondsAfterFinished" not in job["spec"], "a day later no Job would have migrated anything"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_each_client_has_its_own_secret(overlay: Path) -> None:
    for pod in pods(overlay):
        for container in pod["containers"]:
            arguments = container.get("args", [])
            secret = secret_of(container, "SIYU_SERVICE_SECRET")
            if arguments[:1] == ["run"]:
                assert secret == f"siyu-service-{arguments[1]}"
            elif arguments[:1] == ["audit"]:
                assert secret == AUDITOR.replace("service:", "siyu-service-")
            else:
                assert secret == "", f"{arguments} signs in nowhere"


def test_the_secrets_that_the_readme_makes_are_those_that_pods_read() -> None:
    """Its commands, run with a kubectl that only repeats what it is asked."""
    block = code_of((K8S / "README.md").read_text(), "secret_of()")
    stub = 'kubectl() { printf "%s\\n" "$*"; }\n'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", stub + block],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "REDIS_URL": "redis://there", "DATABASE_URL": "postgresql://admin:p%40w@there:5432/siyu"},
    )
    asked = [line for line in done.stdout.splitlines() if " create secret generic " in line]
    made = {
        (line.split()[5], *literal.split("=", 1))
        for line in asked
        for literal in re.findall(r"--from-literal=(\S+)", line)
    }
    wanted = {
        (reference["name"], reference["key"])
        for overlay in OVERLAYS
        for pod in pods(overlay)
        for container in pod["containers"]
        for variable in container.get("env", [])
        if (reference := variable.get("valueFrom", {}).get("secretKeyRef"))
    }
    assert {(name, key) for name, key, _ in made} == wanted
    urls = {name: value for name, key, value in made if key == "url"}
    assert urls["siyu-database-admin"] == "postgresql://admin:p%40w@there:5432/siyu"
    assert urls["siyu-database"] == "postgresql://there:5432/siyu"
    values = {name: value for name, key, value in made if key == "secret"}
    root = values.pop("siyu-root")
    assert re.fullmatch("[0-9a-f]{64}", root)
    for name, value in values.items():
        assert value == installation_secret(root, name.replace("siyu-service-", "service:"))


def test_the_readme_makes_the_first_tenant_with_calls_that_there_are() -> None:
    block = code_of((K8S / "README.md").read_text(), "/v1/tenants")
    assert PLATFORM_CLIENT in block
    json_format.ParseDict(json.loads(re.findall(r"-d '(\{[^']+\})'", block)[0]), tenant_pb2.CreateTenantRequest())
    target = re.search(r"port-forward service/(\S+) \d+:(\d+)", block)
    assert target is not None
    service = rendered(K8S / "overlays" / "dev").named("Service", target[1])
    assert service is not None
    assert int(target[2]) in {port["port"] for port in service["spec"]["ports"]}


def test_the_audit_of_the_runbook_asks_the_services(tmp_path: Path) -> None:
    """What it says to type sets the tenant; and what the pod then runs gets as far as signing in."""
    block = code_of((K8S / "RUNBOOK.md").read_text(), "cronjob/siyu-audit")
    audit = rendered(K8S / "overlays" / "dev").named("CronJob", "siyu-audit")
    assert audit is not None
    assert audit["spec"]["suspend"] is True
    assert "--from=cronjob/siyu-audit" in block
    (typed,) = (line for line in block.splitlines() if " set env " in line)
    (setting,) = (word for word in typed.replace("<tenant id>", TENANT).split() if "=" in word)
    file = tmp_path / "audit.yaml"
    file.write_text(yaml.safe_dump(audit))
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert kubectl is not None
    told = subprocess.run(
        [kubectl, "set", "env", "--local", "-f", str(file), setting, "-o", "yaml"],
        capture_output=True,
        text=True,
        check=True,
    )
    (container,) = yaml.safe_load(told.stdout)["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    literal = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    arguments = [re.sub(r"\$\((\w+)\)", lambda name: literal[name[1]], each) for each in container["args"]]
    assert arguments == ["audit", "--tenant", TENANT]
    configuration = rendered(K8S / "overlays" / "dev").named("ConfigMap", "siyu-settings")
    assert configuration is not None
    # where nothing answers: what there is to see is that it asks, and what it says then
    nowhere = {name: "127.0.0.1:1" for name in configuration["data"] if name.endswith("_ADDRESS")}
    ran = subprocess.run(
        [sys.executable, "-m", "services.console", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=REPOSITORY,
        env={
            "PATH": os.environ["PATH"],
            "SIYU_STATE_DIR": str(tmp_path),
            "SIYU_SERVICE_SECRET": "a secret",
            **configuration["data"],
            **nowhere,
        },
    )
    assert ran.returncode == 1, ran.stderr
    assert "a service did not answer the audit: UNAVAILABLE" in ran.stdout


def code_of(document: str, holding: str) -> str:
    """The one block of shell that holds the text."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", document, flags=re.MULTILINE | re.DOTALL)
    (found,) = (textwrap.dedent(block) for block in blocks if holding in block)
    return found


def test_settings_in_the_config_map_are_settings_of_the_code() -> None:
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    configuration = rendered(K8S / "overlays" / "dev").named("ConfigMap", "siyu-settings")
    assert configuration is not None
    assert set(configuration["data"]) <= known
    Settings.model_validate({str(key): value for key, value in configuration["data"].items()})


def test_the_image_holds_what_its_roles_import() -> None:
    copied = re.findall(r"^COPY (?!--from)(\S+)", (K8S / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert {"services", "gateway", "k8s/gate", "proto/gen"} <= set(copied)
    for path in copied:
        assert (REPOSITORY / path).exists(), path


def test_everything_is_denied_that_is_not_said() -> None:
    policies = list(rendered(K8S / "overlays" / "dev").of("NetworkPolicy"))
    deny = next(each for each in policies if name_of(each) == "siyu-default-deny")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_kubectl_is_the_pinned_one() -> None:
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert kubectl is not None
    version = yaml.safe_load(
        subprocess.run(
            [kubectl, "version", "--client", "-o", "yaml"], capture_output=True, text=True, check=True
        ).stdout
    )
    assert version["kustomizeVersion"].startswith("v5")

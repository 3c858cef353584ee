"""The manifests render offline, are valid by Kubernetes' own types, and agree with the code."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from k8s.gate.checks import arguments_of, containers
from k8s.gate.manifests import Manifests, from_files, name_of
from services.console.stack.roles import ROLES
from services.runtime.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
K8S = REPOSITORY / "k8s"
OVERLAYS = sorted(path for path in (K8S / "overlays").iterdir())
MODELS = {
    "Deployment": client.V1Deployment, "Service": client.V1Service, "ConfigMap": client.V1ConfigMap,
    "Job": client.V1Job, "HorizontalPodAutoscaler": client.V2HorizontalPodAutoscaler, "Namespace": client.V1Namespace,
    "PodDisruptionBudget": client.V1PodDisruptionBudget, "NetworkPolicy": client.V1NetworkPolicy,
    "ServiceAccount": client.V1ServiceAccount,
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
    for kind in ("Deployment", "Job"):
        for workload in rendered(overlay).of(kind):
            pod = workload["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            for container in (*containers(workload), *pod.get("initContainers", [])):
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert security["readOnlyRootFilesystem"] is True
                assert "memory" in container["resources"]["limits"]


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

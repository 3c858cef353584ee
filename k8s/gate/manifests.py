"""What the gate looks at: the objects of a namespace, from a cluster or from a folder of manifests."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

PAGE_SIZE = 200
TIMEOUT_S = 30
SHOWN = 5
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")


class UnreadableError(Exception):
    """The cluster does not answer, or the folder holds no manifests; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """All objects, and whether they carry a live status."""

    objects: tuple[Manifest, ...]
    is_live: bool

    def of(self, kind: str) -> Iterator[Manifest]:
        """The objects of a kind, by name."""
        found = (each for each in self.objects if each.get("kind") == kind)
        return iter(sorted(found, key=name_of))

    def named(self, kind: str, name: str) -> Manifest | None:
        """The object of that kind and name, or None."""
        return next((each for each in self.of(kind) if name_of(each) == name), None)


def name_of(manifest: Manifest) -> str:
    """An object's name."""
    return str(manifest.get("metadata", {}).get("name", ""))


def from_files(folder: Path) -> Manifests:
    """Reads rendered manifests, a file or a folder; a kustomization is rendered first. Raises UnreadableError."""
    if not folder.exists():
        raise UnreadableError(f"{folder} is not there")
    if folder.is_file():
        text = [folder.read_text()]
    elif _is_kustomization(folder):
        text = [_rendered(folder)]
    elif below := _kustomizations_below(folder):
        # their files are parts: read as they lie, every role would be missing
        several = ", ".join(map(str, below[:SHOWN])) + (" …" if len(below) > SHOWN else "")
        raise UnreadableError(f"{folder} is no kustomization, but holds some; give one of them: {several}")
    else:
        text = [path.read_text() for path in sorted(folder.rglob("*.y*ml"))]
    try:
        found = tuple(each for part in text for each in yaml.safe_load_all(part) if isinstance(each, dict))
    except yaml.YAMLError as error:
        raise UnreadableError(f"{folder} holds something that is not YAML: {error}") from error
    if not found:
        raise UnreadableError(f"{folder} holds no manifests")
    return Manifests(objects=found, is_live=False)


def _is_kustomization(folder: Path) -> bool:
    return any((folder / name).is_file() for name in KUSTOMIZATIONS)


def _kustomizations_below(folder: Path) -> list[Path]:
    """The uppermost ones; what lies in them is their parts."""
    found = sorted({path.parent for name in KUSTOMIZATIONS for path in folder.rglob(name)})
    return [each for each in found if not any(above in found for above in each.parents)]


def _rendered(folder: Path) -> str:
    kubectl = shutil.which("kubectl", path=str(Path(sys.executable).parent)) or shutil.which("kubectl")
    if kubectl is None:
        raise UnreadableError("kubectl is needed to render a kustomization; or give a folder that is rendered")
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            [kubectl, "kustomize", str(folder)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableError(f"kubectl did not render {folder} within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        raise UnreadableError(f"kubectl can't render {folder}: {done.stderr.strip()}")
    return done.stdout


def from_cluster(namespace: str) -> Manifests:
    """Reads the namespace by the usual kubeconfig or the pod's own account. Raises UnreadableError."""
    from kubernetes import client, config  # noqa: PLC0415 - a second to load, and only the gate needs it
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        try:
            config.load_incluster_config()  # type: ignore[no-untyped-call]
        except config.ConfigException:
            config.load_kube_config()  # type: ignore[no-untyped-call]
        found = tuple(_listed(client, namespace))
    except config.ConfigException as error:
        raise UnreadableError(f"no cluster is configured ({error}); set KUBECONFIG or give --files") from error
    except ApiException as error:
        raise UnreadableError(f"the cluster refuses: {error.status} {error.reason}") from error
    except (HTTPError, OSError) as error:
        raise UnreadableError(f"the cluster does not answer: {error}") from error
    return Manifests(objects=found, is_live=True)


def _listed(client: Any, namespace: str) -> Iterator[Manifest]:
    core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
    scaling, policy, network = client.AutoscalingV2Api(), client.PolicyV1Api(), client.NetworkingV1Api()
    lists = {
        "Deployment": apps.list_namespaced_deployment,
        "Job": batch.list_namespaced_job,
        "HorizontalPodAutoscaler": scaling.list_namespaced_horizontal_pod_autoscaler,
        "PodDisruptionBudget": policy.list_namespaced_pod_disruption_budget,
        "NetworkPolicy": network.list_namespaced_network_policy,
        "Service": core.list_namespaced_service,
        "ConfigMap": core.list_namespaced_config_map,
        "Secret": core.list_namespaced_secret,
    }
    plain = client.ApiClient()
    for kind, read in lists.items():
        following = None
        while True:
            page = read(namespace, limit=PAGE_SIZE, _continue=following, _request_timeout=TIMEOUT_S)
            for item in page.items:
                yield {**plain.sanitize_for_serialization(item), "kind": kind}
            following = page.metadata._continue  # noqa: SLF001 - the client's own name for it
            if not following:
                break

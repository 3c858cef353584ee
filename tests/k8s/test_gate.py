"""The gate finds each fault that is planted, in rendered files and over the API of a cluster."""

import base64
import copy
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.gate.checks import findings
from k8s.gate.main import main
from k8s.gate.manifests import Manifests, UnreadableError, from_cluster, from_files
from services.console.stack.roles import ROLES

DEV = Path(__file__).resolve().parents[2] / "k8s" / "overlays" / "dev"
PATHS = {
    "deployments": "Deployment", "jobs": "Job", "horizontalpodautoscalers": "HorizontalPodAutoscaler",
    "poddisruptionbudgets": "PodDisruptionBudget", "services": "Service", "configmaps": "ConfigMap",
    "secrets": "Secret", "networkpolicies": "NetworkPolicy",
}  # fmt: skip


@pytest.fixture(scope="module")
def dev() -> Manifests:
    return from_files(DEV)


def changed(manifests: Manifests, kind: str, name: str, change: Callable[[dict[str, Any]], object]) -> Manifests:
    objects = copy.deepcopy(manifests.objects)
    found = next(each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name)
    change(found)
    return Manifests(objects=objects, is_live=manifests.is_live)


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def variable(deployment: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in container(deployment)["env"] if each["name"] == name)
    return found


def replace_with(target: dict[str, Any], **fields: object) -> None:
    target.clear()
    target.update(fields)


def test_the_overlay_passes(dev: Manifests) -> None:
    assert findings(dev, ROLES) == ()


@pytest.mark.parametrize(
    ("kind", "name", "change", "check"),
    [
        pytest.param(
            "Deployment", "siyu-loyalty-accrual", lambda it: container(it).update(args=[]), "roles", id="no role"
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: container(it).update(args=["run", "commerce", "api"]),
            "roles",
            id="two Deployments of one role",
        ),
        pytest.param(
            "Deployment", "siyu-commerce-api", lambda it: container(it)["ports"].pop(0), "ports", id="port gone"
        ),
        pytest.param(
            "Service", "siyu-commerce-api", lambda it: it["spec"]["ports"][0].update(port=1), "ports", id="address off"
        ),
        pytest.param(
            "Service",
            "siyu-loyalty-api",
            lambda it: it["spec"]["selector"].update(x="y"),
            "ports",
            id="selects nothing",
        ),
        pytest.param(
            "Deployment",
            "siyu-identity-api",
            lambda it: container(it).pop("readinessProbe"),
            "probes",
            id="no readiness",
        ),
        pytest.param(
            "Deployment",
            "siyu-identity-api",
            lambda it: container(it)["readinessProbe"]["grpc"].update(port=5),
            "probes",
            id="probe of another port",
        ),
        pytest.param(
            "Deployment",
            "siyu-identity-api",
            lambda it: container(it).update(livenessProbe=container(it)["readinessProbe"]),
            "probes",
            id="liveness asks a dependency",
        ),
        pytest.param(
            "PodDisruptionBudget",
            "siyu-commerce-orders",
            lambda it: it["spec"].update(maxUnavailable=0),
            "headroom",
            id="no pod may go",
        ),
        pytest.param(
            "HorizontalPodAutoscaler",
            "siyu-commerce-api",
            lambda it: it["spec"].update(minReplicas=1),
            "headroom",
            id="one pod",
        ),
        pytest.param(
            "Deployment",
            "siyu-campaign-api",
            lambda it: it["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=5),
            "drains",
            id="killed in drain",
        ),
        pytest.param(
            "Deployment",
            "siyu-campaign-api",
            lambda it: it["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable="25%"),
            "drains",
            id="old pod first",
        ),
        pytest.param(
            "Job",
            "siyu-migrate-loyalty",
            lambda it: container(it).update(image="siyu:old"),
            "migrations",
            id="old migration",
        ),
        pytest.param(
            "Job", "siyu-migrate-loyalty", lambda it: container(it).update(args=[]), "migrations", id="no migration"
        ),
        pytest.param(
            "ConfigMap",
            "siyu-settings",
            lambda it: it["data"].update(SIYU_TYPO="1"),
            "settings",
            id="a name nobody reads",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: variable(it, "DATABASE_URL")["valueFrom"]["secretKeyRef"].update(name="siyu-database-admin"),
            "logins",
            id="a role logs in as the admin",
        ),
        pytest.param(
            "Deployment",
            "siyu-envoy",
            lambda it: it["spec"]["template"]["spec"]["initContainers"][0]["env"].append(
                {"name": "X", "valueFrom": {"secretKeyRef": {"name": "siyu-database-admin", "key": "url"}}}
            ),
            "logins",
            id="the admin's URL by another name",
        ),
        pytest.param(
            "Deployment",
            "siyu-commerce-relay",
            lambda it: replace_with(variable(it, "DATABASE_URL"), name="DATABASE_URL", value="postgresql://a:b@db/x"),
            "logins",
            id="a user in the manifest",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-relay",
            lambda it: container(it)["startupProbe"]["grpc"].update(port=9464),
            "probes",
            id="startup asks the metrics",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-relay",
            lambda it: container(it)["readinessProbe"]["grpc"].update(port=9464),
            "probes",
            id="readiness asks a port that is declared and not the role's",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: container(it).update(readinessProbe={"httpGet": {"path": "/readyz", "port": 50051}}),
            "probes",
            id="readiness in a protocol that the role does not speak",
        ),
        pytest.param(
            "Deployment",
            "siyu-envoy",
            lambda it: container(it).update(startupProbe={"tcpSocket": {"port": 9}}),
            "probes",
            id="startup of a stranger at another port",
        ),
        pytest.param(
            "Service",
            "siyu-loyalty-api",
            lambda it: it["spec"]["ports"][0].update(targetPort="metrics"),
            "ports",
            id="calls go to the metrics",
        ),
        pytest.param(
            "Service",
            "siyu-loyalty-api",
            lambda it: it["spec"]["selector"].pop("app.kubernetes.io/component"),
            "ports",
            id="calls go to all roles of the service",
        ),
        pytest.param(
            "Service",
            "siyu-loyalty-api",
            lambda it: it["spec"]["selector"].update({"app.kubernetes.io/name": "commerce"}),
            "ports",
            id="calls go to another service",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: it["spec"]["selector"]["matchLabels"].update(x="y"),
            "selectors",
            id="a Deployment that does not know its pods",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: it["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
            "selectors",
            id="a Deployment that means others' pods",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: container(it)["resources"]["requests"].pop("cpu"),
            "scaling",
            id="no request of what it is scaled by",
        ),
        pytest.param(
            "Deployment", "siyu-loyalty-api", lambda it: it["spec"].update(replicas=2), "scaling", id="set back"
        ),
        pytest.param(
            "HorizontalPodAutoscaler",
            "siyu-loyalty-api",
            lambda it: it["spec"].update(maxReplicas=1),
            "scaling",
            id="fewer at most than at least",
        ),
        pytest.param(
            "HorizontalPodAutoscaler",
            "siyu-loyalty-relay",
            lambda it: it["spec"]["scaleTargetRef"].update(name="siyu-loyalty-api"),
            "scaling",
            id="two scale one",
        ),
        pytest.param(
            "PodDisruptionBudget",
            "siyu-loyalty-api",
            lambda it: replace_with(it["spec"], minAvailable="60%", selector=it["spec"]["selector"]),
            "headroom",
            id="60 per cent of two are two",
        ),
        pytest.param(
            "PodDisruptionBudget",
            "siyu-loyalty-api",
            lambda it: replace_with(it["spec"], minAvailable=3, selector=it["spec"]["selector"]),
            "headroom",
            id="more must stay than there are",
        ),
        pytest.param(
            "PodDisruptionBudget",
            "siyu-loyalty-api",
            lambda it: it["spec"].update(maxUnavailable="0%"),
            "headroom",
            id="none in per cent",
        ),
        pytest.param(
            "PodDisruptionBudget",
            "siyu-loyalty-api",
            lambda it: it["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
            "headroom",
            id="two budgets protect one pod",
        ),
        pytest.param(
            "Deployment",
            "siyu-loyalty-api",
            lambda it: it["spec"]["strategy"]["rollingUpdate"].update(maxSurge=0),
            "drains",
            id="no new pod may start",
        ),
        pytest.param(
            "ConfigMap",
            "siyu-settings",
            lambda it: it["metadata"].update(name="other-settings"),
            "settings",
            id="no settings",
        ),
        pytest.param(
            "ConfigMap",
            "siyu-settings",
            lambda it: it["data"].update(SIYU_POOL_SIZE="many"),
            "settings",
            id="a value that can't be",
        ),
        pytest.param(
            "ConfigMap",
            "siyu-settings",
            lambda it: it["data"].pop("SIYU_LOYALTY_ADDRESS"),
            "settings",
            id="nobody is told where loyalty is",
        ),
        pytest.param(
            "Deployment",
            "siyu-identity-api",
            lambda it: container(it)["env"].remove(variable(it, "SIYU_ROOT_SECRET")),
            "settings",
            id="a role lacks what it does not start without",
        ),
        pytest.param(
            "Deployment",
            "siyu-envoy",
            lambda it: it["spec"]["template"]["spec"]["initContainers"][0]["env"].append(
                {"name": "SIYU_EDGE_CLIENT_BURST", "value": "0"}
            ),
            "settings",
            id="a value of the edge's that can't be",
        ),
        pytest.param(
            "NetworkPolicy",
            "siyu-calls",
            lambda it: it["spec"]["ingress"][0]["ports"][0].update(port=50061),
            "network",
            id="calls are not let in",
        ),
        pytest.param(
            "NetworkPolicy",
            "siyu-roles-out",
            lambda it: it["spec"]["egress"][0]["ports"].pop(0),
            "network",
            id="calls are not let out",
        ),
        pytest.param(
            "NetworkPolicy",
            "siyu-gateway",
            lambda it: it["spec"]["podSelector"]["matchLabels"].update(x="y"),
            "network",
            id="a policy that means nobody",
        ),
    ],
)
def test_a_planted_fault_is_found(
    dev: Manifests, kind: str, name: str, change: Callable[[dict[str, Any]], object], check: str
) -> None:
    found = findings(changed(dev, kind, name, change), ROLES)
    assert check in {each.check for each in found}, found


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        pytest.param("SIYU_POOL_SIZE", "many", "SIYU_POOL_SIZE: Input should be a valid integer", id="a value"),
        pytest.param("SIYU_LOYALTY_ADDRESS", None, "SIYU_LOYALTY_ADDRESS is not set", id="an address"),
        pytest.param(
            "SIYU_LOYALTY_ADDRESS", "siyu-loyalty-api", "no Service answers at siyu-loyalty-api", id="no port"
        ),
    ],
)
def test_a_fault_of_all_roles_is_told_once(dev: Manifests, key: str, value: str | None, problem: str) -> None:
    def change(it: dict[str, Any]) -> None:
        it["data"].pop(key)
        if value is not None:
            it["data"][key] = value

    (found,) = findings(changed(dev, "ConfigMap", "siyu-settings", change), ROLES)
    assert found.problem.startswith(problem)


class Cluster:
    """A server that answers lists as the API server does, in pages."""

    def __init__(self, objects: list[dict[str, Any]]) -> None:
        self.objects = objects
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                resource = self.path.partition("?")[0].rpartition("/")[2]
                items = [each for each in outer.objects if each["kind"] == PATHS[resource]]
                following = "continue=2" not in self.path and len(items) > 10
                page = items[:10] if following else items[10:] if "continue=2" in self.path else items
                body = json.dumps({"items": page, "metadata": {"continue": "2" if following else ""}}).encode()
                self.send_response(outer.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def configured(self, folder: Path) -> Path:
        port = self.server.server_address[1]
        configuration = {
            "apiVersion": "v1", "kind": "Config", "current-context": "test", "users": [{"name": "u", "user": {}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(configuration))
        return path


def encoded(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


@pytest.fixture
def cluster(dev: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    objects = copy.deepcopy(list(dev.objects))
    names: dict[str, dict[str, str]] = {}
    for each in objects:
        if each["kind"] == "Job":
            each["status"] = {"succeeded": 1}
        if each["kind"] == "PodDisruptionBudget":
            each["status"] = {
                "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
            }  # fmt: skip
        if each["kind"] in {"Deployment", "Job"}:
            for told in container(each).get("env", []):
                if reference := told.get("valueFrom", {}).get("secretKeyRef"):
                    names.setdefault(reference["name"], {})[reference["key"]] = encoded("x")
    names["siyu-database"]["url"] = encoded("postgresql://db:5432/siyu")
    names["siyu-database-admin"]["url"] = encoded("postgresql://admin:pw@db:5432/siyu")
    objects.extend({"kind": "Secret", "metadata": {"name": name}, "data": data} for name, data in names.items())
    cluster = Cluster(objects)
    monkeypatch.setenv("KUBECONFIG", str(cluster.configured(tmp_path)))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield cluster
    cluster.server.shutdown()
    cluster.server.server_close()


def test_a_folder_of_kustomizations_is_refused_and_names_them() -> None:
    named = r"give one of them: \S+/k8s/base, \S+/k8s/overlays/dev$"
    with pytest.raises(UnreadableError, match=named):
        from_files(DEV.parents[1])


def test_one_rendered_file_is_read(tmp_path: Path, dev: Manifests) -> None:
    rendered = tmp_path / "siyu.yaml"
    rendered.write_text(yaml.safe_dump_all(dev.objects))
    assert findings(from_files(rendered), ROLES) == ()


def test_a_healthy_cluster_passes(cluster: Cluster) -> None:
    live = from_cluster("siyu")
    assert len(list(live.of("Deployment"))) == len(list(from_files(DEV).of("Deployment"))), "every page was read"
    assert findings(live, ROLES) == ()
    assert main(files=None, namespace="siyu") == 0


def test_a_cluster_that_can_not_roll_is_told(cluster: Cluster) -> None:
    for each in cluster.objects:
        if each["kind"] == "Job" and each["metadata"]["name"] == "siyu-migrate-commerce":
            each["status"] = {"failed": 1}
        if each["kind"] == "PodDisruptionBudget" and each["metadata"]["name"] == "siyu-loyalty-api":
            each["status"]["disruptionsAllowed"] = 0
    cluster.objects = [
        each for each in cluster.objects if not (each["kind"] == "Secret" and each["metadata"]["name"] == "siyu-root")
    ]
    found = {(each.check, each.subject) for each in findings(from_cluster("siyu"), ROLES)}
    assert found == {
        ("migrations", "siyu-migrate-commerce"),
        ("headroom", "siyu-loyalty-api"),
        ("secrets", "siyu-root"),
    }
    assert main(files=None, namespace="siyu") == 1


@pytest.mark.parametrize(
    ("secret", "url"),
    [
        pytest.param("siyu-database", "postgresql://admin:pw@db:5432/siyu", id="the roles read the admin's"),
        pytest.param("siyu-database", "postgresql://db:5432/siyu?user=admin", id="as a parameter"),
        pytest.param("siyu-database-admin", "postgresql://db:5432/siyu", id="migrations have no admin"),
    ],
)
def test_who_logs_in_to_a_clusters_database_is_told(cluster: Cluster, secret: str, url: str) -> None:
    for each in cluster.objects:
        if each["kind"] == "Secret" and each["metadata"]["name"] == secret:
            each["data"]["url"] = encoded(url)
    (found,) = findings(from_cluster("siyu"), ROLES)
    assert (found.check, found.subject) == ("logins", secret)
    assert "pw" not in found.problem.replace("password", "")


def test_a_secret_that_only_a_migration_needs_is_missed(cluster: Cluster) -> None:
    cluster.objects = [each for each in cluster.objects if each["metadata"]["name"] != "siyu-database-admin"]
    found = {(each.check, each.subject) for each in findings(from_cluster("siyu"), ROLES)}
    assert found == {("secrets", "siyu-database-admin")}


def test_a_cluster_that_refuses_is_told_in_words(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.status = 403
    with pytest.raises(UnreadableError, match="refuses: 403"):
        from_cluster("siyu")
    assert main(files=None, namespace="siyu") == 2
    assert "refuses" in capsys.readouterr().out


def test_a_folder_without_manifests_is_told(tmp_path: Path) -> None:
    assert main(files=tmp_path / "gone", namespace="siyu") == 2
    assert main(files=tmp_path, namespace="siyu") == 2

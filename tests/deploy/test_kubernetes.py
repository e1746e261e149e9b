"""The manifests for Kubernetes: built by kustomize, valid by its schemas, fit for how the proxy lives and ends."""

import shutil
import subprocess

import pytest
import yaml

from splitproxy.config import load

OVERLAYS = ("ingress", "sidecar")
VERSIONS = ("1.29", "1.34")
"""The first with sidecars and ReadWriteOncePod by default, and a recent one."""
kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


@pytest.fixture(params=OVERLAYS)
def overlay(request):
    return request.param


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a function that gives the objects of an overlay by their kind."""
    known = {}

    def build(deploy, name):
        if name not in known:
            command = ["kubectl", "kustomize", str(deploy / "kubernetes/overlays" / name)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            objects = list(yaml.safe_load_all(done.stdout))
            known[name] = {one["kind"]: one for one in objects}
            assert len(known[name]) == len(objects)
        return known[name]

    return build


@pytest.fixture
def objects(deploy, overlay, built):
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    return built(deploy, overlay)


@pytest.fixture
def pod(objects):
    return objects["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod):
    (found,) = (one for one in pod["containers"] + pod.get("initContainers", []) if one["name"] == "splitproxy")
    return found


@pytest.fixture
def config(objects, tmp_path):
    """Return what the ConfigMap's file says, loaded as the proxy loads it."""
    for name, text in objects["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    loaded = load(tmp_path, {"STATE_DIRECTORY": "/var/lib/splitproxy"})
    assert list(loaded.warnings) == []
    return loaded.config


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_of_the_api_accept_them(objects, version):
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed (extra deploy)")
    for one in objects.values():
        assert validator.validate(one, version, strict=True).startswith(version)


def test_a_mistyped_key_would_be_found(objects):
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed (extra deploy)")
    deployment = yaml.safe_load(yaml.safe_dump(objects["Deployment"]))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 40
    with pytest.raises(validator.ValidationError):
        validator.validate(deployment, VERSIONS[-1], strict=True)


def test_there_is_one_pod_at_a_time_with_a_volume_for_the_state(objects, pod, container):
    spec = objects["Deployment"]["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    (volume,) = (one for one in pod["volumes"] if one["name"] == "state")
    claim = objects["PersistentVolumeClaim"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "state")
    assert mount["mountPath"] == "/var/lib/splitproxy"  # $STATE_DIRECTORY of the image
    assert pod["securityContext"]["fsGroup"] == container["securityContext"].get(
        "runAsGroup", pod["securityContext"].get("runAsGroup")
    )


def test_a_changed_configmap_is_a_reload_and_no_new_pod(objects, pod, container):
    name = objects["ConfigMap"]["metadata"]["name"]
    assert name == "splitproxy"  # no hash of the content
    (volume,) = (one for one in pod["volumes"] if one["name"] == "configuration")
    assert volume["configMap"] == {"name": name}
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "configuration")
    assert "subPath" not in mount
    assert container["args"] == ["run", "-c", mount["mountPath"]]


def test_the_pod_lives_until_the_drain_has_ended(config, pod):
    assert pod["terminationGracePeriodSeconds"] >= config.drain.delay + config.drain.timeout + 5


def test_traffic_stops_coming_before_listeners_close(objects, config):
    # The endpoints of a Service take a moment to be forgotten everywhere; nobody but its own pod asks a sidecar.
    assert config.drain.delay == (5.0 if "Service" in objects else 0.0)


def test_probes_ask_the_listener_that_is_for_them(config, container):
    assert config.probes.address == "0.0.0.0:9901"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    asked = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {
        "startupProbe": {"path": "/readyz", "port": "probes"},
        "readinessProbe": {"path": "/readyz", "port": "probes"},
        "livenessProbe": {"path": "/healthz", "port": "probes"},
    }
    assert ports["probes"] == 9901
    live = container["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 30  # a control process is replaced within seconds


def test_the_api_is_reached_from_the_pod_alone(config):
    assert config.admin.address == "127.0.0.1:9900"
    assert not config.admin.insecure


def test_prometheus_is_told_where_to_scrape(objects):
    notes = objects["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert (notes["prometheus.io/scrape"], notes["prometheus.io/port"]) == ("true", "9901")


def test_it_runs_with_no_more_rights_than_it_needs(pod, container):
    own = {**pod["securityContext"], **container["securityContext"]}
    assert own["runAsNonRoot"] is True
    assert own["runAsUser"] == 10001
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


@kubectl
def test_everybody_outside_reaches_the_listener(deploy, built, tmp_path):
    objects = built(deploy, "ingress")
    template = objects["Deployment"]["spec"]["template"]
    service = objects["Service"]["spec"]
    labels = template["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (port,) = service["ports"]
    (container,) = template["spec"]["containers"]
    named = {one["name"]: one["containerPort"] for one in container["ports"]}
    (listener,) = yaml.safe_load(objects["ConfigMap"]["data"]["splitproxy.yaml"])["listeners"]
    assert listener["address"] == f"0.0.0.0:{named[port['targetPort']]}"


@kubectl
def test_a_sidecar_starts_before_its_program_and_ends_after_it(deploy, built):
    spec = built(deploy, "sidecar")["Deployment"]["spec"]["template"]["spec"]
    (sidecar,) = spec["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    (program,) = spec["containers"]
    (listener,) = yaml.safe_load(built(deploy, "sidecar")["ConfigMap"]["data"]["splitproxy.yaml"])["listeners"]
    assert {"name": "SHOP_URL", "value": f"http://{listener['address']}"} in program["env"]

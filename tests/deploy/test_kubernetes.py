"""The Kubernetes manifests: their form, their command lines, and who may speak to whom.

Core kinds are checked against the published schemas. A JobSet has none that comes as a package: its fields are compared
with those that its API (v1alpha2) documents, and the jobs in it are checked as Jobs.
"""

import re
import shutil
import subprocess
from typing import Any

import pytest

from common.config import ScorerOptions, TrainerOptions
from tests.deploy import commands
from tests.deploy.manifests import KUBERNETES, Pod, jobset, objects, pods, read

OVERLAYS = ("base", "ranks")
VERSION = "1.33"
PODS = [pytest.param(pod, id=f"{overlay}-{pod.name}") for overlay in OVERLAYS for pod in pods(overlay)]
JOBSET = {"replicatedJobs", "network", "successPolicy", "failurePolicy", "suspend", "coordinator", "managedBy"}
JOBSET |= {"ttlSecondsAfterFinished", "volumeClaimPolicies"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_has_the_form_that_is_published(overlay: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="the schemas come with kubernetes-validate")
    plain = [one for one in objects(overlay) if one["kind"] != "JobSet"]
    for one in [*plain, *read("secrets.template.yaml"), *(pod.job for pod in pods(overlay))]:
        schemas.validate(one, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_jobset_has_the_fields_that_are_documented(overlay: str) -> None:
    found = jobset(overlay)
    spec = found["spec"]
    assert found["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert set(spec) <= JOBSET
    names = [job["name"] for job in spec["replicatedJobs"]]
    for job in spec["replicatedJobs"]:
        assert set(job) <= {"name", "groupName", "template", "replicas", "dependsOn"}
        assert set(job["template"]) <= {"metadata", "spec"}
    assert spec["successPolicy"]["operator"] in ("All", "Any")
    assert set(spec["successPolicy"]["targetReplicatedJobs"]) <= set(names)
    assert set(spec["failurePolicy"]) <= {"maxRestarts", "restartStrategy", "rules"}
    for rule in spec["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
        assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
        assert set(rule) <= {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_makes_of_them_what_is_tested_here(overlay: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    import yaml

    made = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout)}
    assert made.pop(("ConfigMap", "marginstream-run"))["data"]["run.toml"]
    expected = {(one["kind"], one["metadata"]["name"]): one for one in objects(overlay)}
    assert made.keys() == expected.keys()
    for key, one in expected.items():
        assert one.get("spec") == untagged(made[key].get("spec")), key


def untagged(spec: Any) -> Any:
    """Without the version that kustomize gives images."""
    if isinstance(spec, dict):
        return {key: "marginstream" if key == "image" else untagged(value) for key, value in spec.items()}
    return [untagged(one) for one in spec] if isinstance(spec, list) else spec


@pytest.mark.parametrize("pod", PODS)
def test_every_command_line_parses_and_has_its_volumes_and_probes(pod: Pod) -> None:
    options = commands.read(pod.words, KUBERNETES / "base" / "run.toml")
    assert isinstance(options, TrainerOptions if pod.name == "trainer" else ScorerOptions)
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in pod.container["volumeMounts"]}
    assert mounts["/data"]
    assert str(options.keys).startswith("/keys/")
    for kind, probe in pod.container.items():
        if kind.endswith("Probe"):
            assert probe["exec"]["command"][:2] == ["probe", str(options.metrics_port)]
    assert {"startupProbe", "livenessProbe"} <= set(pod.container)
    assert {mount["name"] for mount in pod.container["volumeMounts"]} == {one["name"] for one in pod.spec["volumes"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_scorers_connect_to_the_service_that_stands_for_rank_0(overlay: str) -> None:
    (service,) = [one for one in objects(overlay) if one["kind"] == "Service"]
    trainer, *scorers = pods(overlay)
    listens = commands.read(trainer.words, KUBERNETES / "base" / "run.toml").listen
    (port,) = service["spec"]["ports"]
    for scorer in scorers:
        connect = commands.read(scorer.words, KUBERNETES / "base" / "run.toml").connect
        assert connect == f"tcp://{service['metadata']['name']}:{port['port']}"
        assert listens.endswith(f":{port['port']}")
    assert service["spec"]["clusterIP"] == "None"
    assert (trainer.labels | {"batch.kubernetes.io/job-completion-index": "0"}) == service["spec"]["selector"]
    assert trainer.job["spec"]["completionMode"] == "Indexed"


def test_there_are_as_many_pods_as_ranks() -> None:
    trainer = next(iter(pods("ranks")))
    number = trainer.job["spec"]["completions"]
    assert trainer.job["spec"]["parallelism"] == number
    assert f"--nnodes={number}" in trainer.words
    assert "--nproc-per-node=1" in trainer.words


@pytest.mark.parametrize("pod", PODS)
def test_no_pod_may_more_than_it_needs(pod: Pod) -> None:
    own, whole = pod.container["securityContext"], pod.spec["securityContext"]
    assert not own["allowPrivilegeEscalation"]
    assert own["readOnlyRootFilesystem"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert whole["runAsNonRoot"]
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod.spec["automountServiceAccountToken"]
    assert pod.container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in pod.container["resources"]["limits"]


@pytest.mark.parametrize("pod", PODS)
def test_secret_keys_reach_their_owner_alone(pod: Pod) -> None:
    (volume,) = [one["secret"] for one in pod.spec["volumes"] if "secret" in one]
    held = {one["metadata"]["name"]: set(one["stringData"]) for one in read("secrets.template.yaml")}
    files = {one["path"] for one in volume["items"]} if "items" in volume else held[volume["secretName"]]
    trainer_has = {"trainer.key", "allowed/scorer.pub"}
    assert files == (trainer_has if pod.name == "trainer" else {"scorer.key", "trainer.pub"})


def test_no_key_is_in_the_manifests() -> None:
    for path in KUBERNETES.rglob("*.yaml"):
        assert not re.search(r"^(public|secret) = ", path.read_text(), flags=re.MULTILINE)
    for secret in read("secrets.template.yaml"):
        assert all(re.fullmatch(r"<keys/[\w./]+>", text) for text in secret["stringData"].values())


STRANGER = {"app.kubernetes.io/name": "something-else"}


@pytest.mark.parametrize(
    ("sender", "receiver", "may"),
    [
        ("scorer", "trainer", True),
        ("more-scorers", "trainer", True),
        ("trainer", "trainer", True),
        ("trainer", "scorer", False),
        ("scorer", "scorer", False),
        ("stranger", "trainer", False),
        ("stranger", "scorer", False),
        ("scorer", "stranger", False),
        ("trainer", "stranger", False),
    ],
)
def test_scorers_reach_trainers_and_nobody_else_reaches_anybody(sender: str, receiver: str, may: bool) -> None:
    labels = {pod.name: pod.labels for pod in pods("base")} | {"stranger": STRANGER}
    policies = [one["spec"] for one in objects("base") if one["kind"] == "NetworkPolicy"]
    if sender != "stranger":
        assert admits(policies, "Egress", labels[sender], labels[receiver]) is may
    if receiver != "stranger":
        assert admits(policies, "Ingress", labels[receiver], labels[sender]) is may


def admits(policies: list[dict[str, Any]], way: str, own: dict[str, str], peer: dict[str, str]) -> bool:
    """Whether a pod's policies of one direction let all tcp ports of a pod through; none of them is no bar."""
    mine = [spec for spec in policies if way in spec["policyTypes"] and has(own, spec["podSelector"]["matchLabels"])]
    end = "from" if way == "Ingress" else "to"
    rules = [rule for spec in mine for rule in spec[way.lower()] if {"protocol": "TCP"} in rule["ports"]]
    selectors = [one["podSelector"]["matchLabels"] for rule in rules for one in rule[end] if "podSelector" in one]
    return not mine or any(has(peer, labels) for labels in selectors)


def has(labels: dict[str, str], wanted: dict[str, str]) -> bool:
    return wanted.items() <= labels.items()

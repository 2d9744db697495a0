"""The Kubernetes manifests as kustomize would hand them out: files, overlays, and the pods in them."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tests.deploy.commands import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"


class Pod(NamedTuple):
    """A pod as its template describes it; `job` is the Job or Deployment around it, alone and whole."""

    name: str
    job: dict[str, Any]
    template: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.template["metadata"]["labels"]
        return found

    @property
    def spec(self) -> dict[str, Any]:
        found: dict[str, Any] = self.template["spec"]
        return found

    @property
    def container(self) -> dict[str, Any]:
        (found,) = self.spec["containers"]
        return dict(found)

    @property
    def words(self) -> list[str]:
        """The command line, of the first of several pods."""
        written = [*self.container["command"], *self.container["args"]]
        return [word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in written]


def read(path: str) -> list[dict[str, Any]]:
    """The objects in a file."""
    return list(yaml.safe_load_all((KUBERNETES / path).read_text()))


def objects(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k OVERLAY` sends, but the ConfigMap: resources of its base, and its replacements."""
    (kustomization,) = read(f"{overlay}/kustomization.yaml")
    found = []
    for resource in kustomization["resources"]:
        found += objects(resource.removeprefix("../")) if resource.startswith("..") else read(f"{overlay}/{resource}")
    for patch in kustomization.get("patches", ()):
        wanted = patch["target"]
        (target,) = [one for one in found if (one["kind"], one["metadata"]["name"]) == tuple(wanted.values())]
        for change in yaml.safe_load(patch["patch"]):
            replace(target, change)
    return found


def replace(target: Any, change: dict[str, Any]) -> None:
    """An operation of RFC 6902; only `replace` is used, which wants something to replace."""
    assert change["op"] == "replace"
    *parents, last = [int(word) if word.isdigit() else word for word in change["path"].split("/")[1:]]
    for word in parents:
        target = target[word]
    assert last in target or last < len(target), f"nothing to replace at {change['path']}"
    target[last] = change["value"]


def jobset(overlay: str) -> dict[str, Any]:
    (found,) = [one for one in objects(overlay) if one["kind"] == "JobSet"]
    return found


def pods(overlay: str) -> Iterator[Pod]:
    """Of the JobSet of an overlay, and of the scorers that may join later."""
    for job in jobset(overlay)["spec"]["replicatedJobs"]:
        whole = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
        yield Pod(job["name"], whole, whole["spec"]["template"])
    for more in read("scorers.yaml"):
        yield Pod("more-scorers", more, more["spec"]["template"])

"""Every manifest of ``deploy/`` is valid, and the check refuses broken ones, without a cluster."""

import shutil

import pytest
import yaml

pytest.importorskip("kubernetes_validate", reason="`make manifests` installs what this needs")

from deployed import FOLDER, OVERLAYS

from paths import ROOT
from tools import manifests

PARTS = [f"overlays/{name}" for name in OVERLAYS] + ["kserve", "fill.yaml"]


@pytest.mark.parametrize("part", PARTS)
def test_every_manifest_is_valid(part):
    documents = manifests.rendered(FOLDER / part)
    assert documents
    assert [error for document in documents for error in manifests.errors(document)] == []


def test_every_file_is_in_a_rendered_part():
    named = {FOLDER / "fill.yaml", FOLDER / "prometheus-adapter.yaml"}  # the latter is for Helm
    for kustomization in FOLDER.rglob("kustomization.yaml"):
        content = yaml.safe_load(kustomization.read_text())
        files = [*content.get("resources", ())]
        files += [file for one in content.get("configMapGenerator", ()) for file in one["files"]]
        named |= {kustomization} | {(kustomization.parent / file).resolve() for file in files}
    assert {path for path in FOLDER.rglob("*.*") if path.is_file()} - named == set()


@pytest.fixture
def copy(tmp_path):
    """A copy of the files, to be changed."""
    return shutil.copytree(FOLDER, tmp_path / "kubernetes")


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_can_take_the_models_from_an_image(copy, name):
    file = copy / "overlays" / name / "kustomization.yaml"
    assert "# components" in file.read_text()
    file.write_text(file.read_text().replace("# components", "components"))
    found = {one["kind"]: one for one in manifests.rendered(file.parent)}
    assert [error for one in found.values() for error in manifests.errors(one)] == []
    assert "PersistentVolumeClaim" not in found
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert [one["name"] for one in pod["initContainers"]] == ["models", "store"]
    assert pod["volumes"][0] == {"name": "models", "emptyDir": {"sizeLimit": "10Gi"}}


# A file, what is replaced in it, by what, and a part of the refusal.
BROKEN = {
    "a field that does not exist": (
        "base/deployment.yaml", "enableServiceLinks:", "enableServiceLink:", "enableServiceLink"),
    "a field at the wrong level": (
        "base/service.yaml", "  selector: {app", "  replicas: 2\n  selector: {app", "replicas"),
    "a value of the wrong type": (
        "base/deployment.yaml", "Seconds: 60", 'Seconds: "a minute"', "a minute"),
    "a value that is not in the list": (
        "base/network.yaml", "[Ingress, Egress]", "Ingress", "policyTypes"),
    "a required field is missing": (
        "base/autoscaler.yaml", "  maxReplicas: 10\n", "", "maxReplicas"),
    "a kind that does not exist": (
        "base/service.yaml", "kind: Service", "kind: Servise", "no schema for Servise of v1"),
    "a kind of an old version": (
        "base/autoscaler.yaml", "autoscaling/v2", "autoscaling/v2beta2", "no schema"),
    "a kind of an unknown project": (
        "base/monitor.yaml", "monitoring.coreos.com/v1", "monitoring.example.org/v1", "no schema"),
    "a ServiceMonitor with a field that does not exist": (
        "base/monitor.yaml", "interval:", "intervall:", "intervall"),
    "a ServiceMonitor with a value of the wrong type": (
        "base/monitor.yaml", "interval: 15s", "interval: 15", "endpoints.0.interval"),
    "a kind that the Prometheus operator does not have": (
        "base/monitor.yaml", "kind: ServiceMonitor", "kind: ServiceMonitors", "no schema"),
    "a ServingRuntime with a field that does not exist": (
        "kserve/runtime.yaml", "supportedModelFormats", "modelFormats", "modelFormats"),
    "a ServingRuntime with a wrong container": (
        "kserve/runtime.yaml", "allowPrivilegeEscalation", "allowPrivilege", "'allowPrivilege'"),
    "an InferenceService with a value of the wrong type": (
        "kserve/service.yaml", "minReplicas: 2", "minReplicas: two", "spec.predictor.minReplicas"),
    "an InferenceService without a predictor": (
        "kserve/service.yaml", "  predictor:", "  transformer:", "'predictor' is a required"),
    "a kind of KServe's other version": (
        "kserve/service.yaml", "v1beta1", "v1alpha1", "no schema for InferenceService"),
}  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "refusal"), BROKEN.values(), ids=BROKEN)
def test_a_broken_manifest_is_refused(copy, capsys, file, old, new, refusal):
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new))
    part = "kserve" if file.startswith("kserve") else "overlays/cpu"
    assert manifests.main([str(copy / part)]) == 1
    refused = [line for line in capsys.readouterr().out.splitlines() if " is valid" not in line]
    assert any(refusal in line for line in refused)
    assert len({line.split(": ")[1] for line in refused}) == 1  # all others are valid


def test_a_folder_that_kustomize_refuses_is_refused(copy, capsys):
    file = copy / "base" / "kustomization.yaml"
    file.write_text(file.read_text().replace("service.yaml", "servise.yaml"))
    assert manifests.main([str(copy / "overlays" / "cpu")]) == 1
    assert "cannot be rendered" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "just words\n", "a: [1\n", "kind: Pod\n"])
def test_a_file_without_a_manifest_is_refused(tmp_path, text, capsys):
    (tmp_path / "file.yaml").write_text(text)
    assert manifests.main([str(tmp_path / "file.yaml")]) == 1
    assert "file.yaml" in capsys.readouterr().out


def test_a_check_of_nothing_is_an_error(capsys):
    assert manifests.main([]) == 2
    assert "python -m tools.manifests" in capsys.readouterr().out


def test_the_table_in_the_documentation_names_every_file():
    text = (ROOT / "docs" / "deployment.md").read_text().split("\n## Kubernetes\n")[1]
    files = [path.relative_to(FOLDER) for path in FOLDER.rglob("*.*") if path.is_file()]
    named = {
        str(path) if path.name != "kustomization.yaml" else f"{path.parent}/" for path in files
    }
    assert {name for name in named - {"base/"} if f"`{name}`" not in text} == set()

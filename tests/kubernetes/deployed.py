"""The files of ``deploy/kubernetes``, as ``kubectl apply`` would get them."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from paths import ROOT
from predictor.settings import Settings
from tools import manifests

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("cpu", "cuda", "onnx")
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
Json = dict[str, Any]


@cache
def overlay(name: str) -> dict[str, Json]:
    """The manifests of an overlay by their kind, of which each has one."""
    documents = manifests.rendered(FOLDER / "overlays" / name)
    found = {document["kind"]: document for document in documents}
    assert len(found) == len(documents)
    return found


@cache
def kserve() -> dict[str, Json]:
    """KServe's manifests by their kind, with the service's name as KServe inserts it."""
    found = {one["kind"]: one for one in manifests.rendered(FOLDER / "kserve")}
    name = found["InferenceService"]["metadata"]["name"]
    return json.loads(json.dumps(found).replace("{{.Name}}", name))


def pod_of(deployment: Json) -> Json:
    return deployment["spec"]["template"]["spec"]


def pods() -> dict[str, Json]:
    """Every pod, as an overlay, KServe or the file for copying models starts it."""
    fill = yaml.safe_load((FOLDER / "fill.yaml").read_text())
    found = {name: pod_of(overlay(name)["Deployment"]) for name in OVERLAYS}
    return found | {"fill": fill["spec"], "kserve": kserve()["ServingRuntime"]["spec"]}


def apps() -> dict[str, Json]:
    """The container that runs the app, in each overlay and in KServe."""
    return {name: pod["containers"][0] for name, pod in pods().items() if name != "fill"}


def environment(container: Json) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def settings(container: Json, tokens: Path) -> Settings:
    """The app's settings in this container, if its tokens are in another file."""
    environ = environment(container)
    if "PREDICTOR_TOKENS_FILE" in environ:
        environ["PREDICTOR_TOKENS_FILE"] = str(tokens)
    return Settings.from_env(environ)


def graceful_timeout() -> int:
    """Seconds in which gunicorn lets requests end after SIGTERM, with the default settings."""
    return int(runpy.run_path(str(ROOT / "gunicorn.conf.py"))["graceful_timeout"])


def bytes_of(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]

"""Check Kubernetes manifests without a cluster: ``python -m tools.manifests FOLDER|FILE ...``.

A folder is rendered by ``kubectl kustomize``. A field that its kind does not have, a value of the
wrong type and a kind without a schema are errors. ``make manifests`` installs what this needs.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import latest_version, schema_contents

CORE = "io.k8s.api.core.v1."  # the part of Kubernetes that KServe's kinds have fields of
VERSION = latest_version()
DEFINITIONS = f"kubernetes-json-schema/v{VERSION}-local-strict/_definitions.json"
# What KServe's Python package calls the types of Kubernetes, where the name alone does not tell.
ELSEWHERE = {
    "V1ObjectMeta": "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "K8sIoApiAppsV1DeploymentStrategy": "io.k8s.api.apps.v1.DeploymentStrategy",
    "K8sIoApiAutoscalingV2HorizontalPodAutoscalerBehavior":
        "io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerBehavior",
    "ResourceQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "V1beta1MetricQuantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
}  # fmt: skip
PLAIN = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
Json = dict[str, Any]


def rendered(path: Path) -> list[Json]:
    """Return the documents of a file, or of a folder that kustomize renders.

    Raises:
        ValueError: kustomize or the parser refuses it; the message says why.
    """
    text = _kustomize(path) if path.is_dir() else path.read_text("utf-8")
    try:
        return [document for document in yaml.safe_load_all(text) if document]
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None


def _kustomize(folder: Path) -> str:
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [str(kubectl), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ValueError(f"{folder} cannot be rendered: {done.stderr.strip()}")
    return done.stdout


def errors(document: Json) -> list[str]:
    """Return what the schema of the document's kind refuses, one line for each error."""
    if not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
        return ["This is not a manifest: it must have apiVersion and kind."]
    version, kind = document["apiVersion"], document["kind"]
    name = f"{kind} {document.get('metadata', {}).get('name', '(no name)')}"
    if (validator := _validator(version, kind)) is None:
        return [f"{name}: there is no schema for {kind} of {version}, so it cannot be checked."]
    return [f"{name}: {_place(error)}{error.message}" for error in validator.iter_errors(document)]


@cache
def _validator(version: str, kind: str) -> Draft202012Validator | None:
    schema = CUSTOM.get(version, _schema_of_kubernetes)(version, kind)
    return schema and Draft202012Validator(schema)


def _place(error: Any) -> str:
    path = ".".join(map(str, error.path))
    return f"{path}: " if path else ""


@cache
def _definitions() -> Json:
    """Return the schemas of Kubernetes' own types by name. They refuse unknown fields."""
    found: Json = schema_contents(DEFINITIONS, VERSION)["$defs"]
    return found


def _schema_of_kubernetes(version: str, kind: str) -> Json | None:
    group, _, version = version.rpartition("/")
    wanted = {"group": group, "kind": kind, "version": version}
    for name, schema in _definitions().items():
        if wanted in schema.get("x-kubernetes-group-version-kind", ()):
            return {"$defs": _definitions(), "$ref": f"#/$defs/{name}"}
    return None


def _schema_of_prometheus_operator(version: str, kind: str) -> Json | None:
    from cloudcoil.models.prometheus_operator import v1  # takes seconds

    model = getattr(v1, kind, None)
    return model and _strict(model.model_json_schema(by_alias=True))


def _strict(schema: Any) -> Any:
    """Refuse properties that an object's schema does not list."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _strict(value) for key, value in schema.items()}
    return schema | {"additionalProperties": False} if _lists_properties(schema) else schema


def _lists_properties(schema: Json) -> bool:
    return schema.get("type") == "object" and isinstance(schema.get("properties"), dict)


def _schema_of_kserve(version: str, kind: str) -> Json | None:
    """Return the schema of a kind of KServe, which publishes none outside its CRDs.

    Its Python package has the fields and types of each kind in classes. They are read here without
    being imported, because they need many further packages.
    """
    classes = _classes_of_kserve()
    name = version.rpartition("/")[2].capitalize() + kind
    if name not in classes:
        return None
    own = {name: _object(*found) for name, found in classes.items()}
    named = re.findall(r'"#/\$defs/([^"]+)"', json.dumps(own))
    unknown: Json = {name: {} for name in named}  # of Knative and KEDA: anything is accepted
    return {"$defs": unknown | _definitions() | own, "$ref": f"#/$defs/{name}"}


@cache
def _classes_of_kserve() -> dict[str, tuple[dict[str, str], set[str]]]:
    """Return the fields with their types, and the required fields, of each class."""
    spec = find_spec("kserve")
    assert spec is not None
    assert spec.origin is not None
    files = sorted((Path(spec.origin).parent / "models").glob("v1*.py"))
    trees = [ast.parse(file.read_text("utf-8")) for file in files]
    found = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return {node.name: _fields(node) for node in found}


def _fields(node: ast.ClassDef) -> tuple[dict[str, str], set[str]]:
    tables = {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in node.body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    names: dict[str, str] = tables["attribute_map"]
    text = ast.unparse(node)
    required = {names[key] for key in names if f"Invalid value for `{key}`, must not be" in text}
    return {names[key]: type for key, type in tables["openapi_types"].items()}, required


def _object(fields: dict[str, str], required: set[str]) -> Json:
    properties = {name: _type(type) for name, type in fields.items()}
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def _type(name: str) -> Json:
    """Return the schema of a type as KServe's classes write it, such as ``list[V1Volume]``."""
    if name.startswith("list["):
        return {"type": "array", "items": _type(name[5:-1])}
    if name.startswith("dict(str, "):
        return {"type": "object", "additionalProperties": _type(name[10:-1])}
    if name in PLAIN:
        return {"type": PLAIN[name]}
    if name in ("object", "datetime"):
        return {}
    if name in ELSEWHERE:
        return {"$ref": f"#/$defs/{ELSEWHERE[name]}"}
    if name.startswith("V1") and not name.startswith(("V1alpha", "V1beta")):
        name = CORE + name[2:]
    return {"$ref": f"#/$defs/{name}"}


CUSTOM = {
    "monitoring.coreos.com/v1": _schema_of_prometheus_operator,
    "serving.kserve.io/v1alpha1": _schema_of_kserve,
    "serving.kserve.io/v1beta1": _schema_of_kserve,
}


def main(paths: list[str]) -> int:
    """Print a line for each manifest and each error. Return 1 if there is an error, otherwise 0."""
    if not paths:
        print("Name folders or files: python -m tools.manifests deploy/kubernetes/overlays/cpu")
        return 2
    status = 0
    for path in paths:
        lines, wrong = _checked(Path(path))
        print(*(f"{path}: {line}" for line in lines), sep="\n")
        status |= wrong
    return status


def _checked(path: Path) -> tuple[list[str], bool]:
    try:
        documents = rendered(path)
    except (OSError, ValueError) as error:
        return [str(error)], True
    if not documents:
        return ["has no manifest"], True
    found = [errors(document) for document in documents]
    valid = [f"{one['kind']} {one['metadata']['name']} is valid"
             for one, wrong in zip(documents, found, strict=True) if not wrong]  # fmt: skip
    return valid + [line for wrong in found for line in wrong], any(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

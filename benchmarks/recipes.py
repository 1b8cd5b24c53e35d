"""Which servers are measured, and what is exported for them."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from benchmarks.load import whole_request
from benchmarks.servers import ROOT, Recipe

# The limit of requests in progress, and of the queue. The clients stay under it. A load of 150 %
# fills the queue in a few seconds.
SLOTS = 40
LIMITS = {"PREDICTOR_MAX_IN_FLIGHT": str(SLOTS), "PREDICTOR_MAX_QUEUE": str(SLOTS)}
MODULE = ("{python}", "-m")
GUNICORN = (*MODULE, "gunicorn")
OURS = (*GUNICORN, "wsgi:app")
SILENT = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"}  # send no usage reports
BENTO = (*MODULE, "bentoml", "serve", "benchmarks.peers.bento:Classifier")
MOSEC = (*MODULE, "benchmarks.peers.mosec", "--timeout", "600000")
# By module: the server's name, its command, and the path and form of a request.
PEERS: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "litserve": (
        "LitServe", (*MODULE, "benchmarks.peers.litserve"),
        "/predict", "application/json image_data",
    ),
    "bentoml": (
        "BentoML", (*BENTO, "--host", "127.0.0.1", "--port", "{port}"),
        "/classify", "multipart/form-data images",
    ),
    "mosec": (
        "mosec", (*MOSEC, "--address", "127.0.0.1", "--port", "{port}"),
        "/inference", "application/json image",
    ),
    "ray.serve": ("Ray Serve", (*MODULE, "benchmarks.peers.ray_serve"), "/", "image/jpeg"),
}  # fmt: skip


class Missing(Exception):
    """Why a server is left out: a sentence."""


def wanted(options: argparse.Namespace, name: str) -> bool:
    """Return whether a server with this name is to be measured."""
    return not options.only or any(text in name for text in options.only)


def ours(model: str, weights: Path, precision: str) -> list[Recipe]:
    """Return this app with torch: in ``precision``, and if that is ``auto``, also in float32."""
    environ = {**LIMITS, "PREDICTOR_MODEL": model, "PREDICTOR_WEIGHTS": str(weights)}
    chosen = Recipe("this app", OURS, environ | {"PREDICTOR_PRECISION": precision})
    if precision != "auto":
        return [chosen]
    return [
        chosen,
        Recipe("this app float32", OURS, environ | {"PREDICTOR_PRECISION": "float32"}),
    ]


def onnx(options: argparse.Namespace, weights: Path, photos: Path) -> Iterator[Recipe]:
    """Yield this app with ONNX files of the model, float32 and int8. It then loads no torch.

    Raises:
        Missing: what writes or runs ONNX files is not installed, or the export fails.
    """
    absent = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
    if absent:
        raise Missing(f"ONNX: not installed: {', '.join(absent)}")
    int8 = ["--int8", "--accept-loss", "100", "--calibrate", *(options.calibrate or [str(photos)])]
    for precision, given in {"float32": [], "int8": int8}.items():
        if wanted(options, name := f"this app ONNX {precision}"):
            file = _export(options, weights, "onnx", name, given) / "model.onnx"
            yield Recipe(name, OURS, {**LIMITS, "PREDICTOR_MODEL": str(file)})


def textbooks(model: str, weights: Path) -> list[Recipe]:
    """Return the textbook app in three configurations of gunicorn."""
    command = (*GUNICORN, "-c", "/dev/null", "-b", "127.0.0.1:{port}", "benchmarks.textbook:app")
    environ = {"BENCH_MODEL": model, "BENCH_WEIGHTS": str(weights)}
    return [
        Recipe("textbook", command, environ),
        Recipe("textbook, 8 threads", (*command, "--threads", "8"), environ),
        Recipe("textbook, -w 2", (*command, "-w", "2"), environ | {"OMP_NUM_THREADS": "1"}),
    ]


def peer(module: str, model: str, weights: Path, photo: bytes) -> list[Recipe]:
    """Return another project's server, which is ready when it has answered ``photo``.

    Raises:
        Missing: it is not installed, or it would listen on all interfaces.
    """
    name, command, path, form = PEERS[module]
    if not find_spec(module.partition(".")[0]):
        raise Missing(f"{name}: not installed; `make bench-peers` installs it")
    if module == "ray.serve" and {one for _, one in socket.if_nameindex()} != {"lo"}:
        raise Missing("Ray Serve: it listens on all interfaces; root gives it a network of its own")
    environ = {**SILENT, "BENCH_MODEL": model, "BENCH_WEIGHTS": str(weights)}
    probe = whole_request("localhost", photo, path, form)
    return [Recipe(name, command, environ, path, form, probe)]


def torchserve(options: argparse.Namespace, weights: Path, photo: bytes) -> Iterator[Recipe]:
    """Yield TorchServe with the archive that this app exports.

    Raises:
        Missing: it or Java is not installed, or the export fails.
    """
    if not wanted(options, "TorchServe"):
        return
    programs = ("torchserve", "torch-model-archiver", "java")
    absent = [name for name in programs if not shutil.which(name)]
    if absent:
        raise Missing(f"TorchServe: not on PATH: {', '.join(absent)}")
    given = ["--archive-format", "no-archive"]
    folder = _export(options, weights, "torchserve", "TorchServe", given)
    command = ("{python}", "-m", "benchmarks.peers.torchserve", str(folder))
    path = f"/predictions/{options.model}"
    probe = whole_request("localhost", photo, path, "image/jpeg")
    yield Recipe("TorchServe", command, {}, path, probe=probe)


def _export(
    options: argparse.Namespace, weights: Path, format: str, name: str, given: list[str]
) -> Path:
    """Return the folder of an export. One of the same weights, code and photos is used again."""
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    for source in sorted((ROOT / "predictor" / "export").glob("*.py")):
        digest.update(source.read_bytes())
    digest.update(repr(options.calibrate).encode())
    file_name = f"{options.model} {digest.hexdigest()[:12]} {name}".replace(" ", "-")
    folder: Path = options.output.absolute() / file_name
    if not folder.exists():
        print(f"export: {folder.name}", file=sys.stderr)
        command = [sys.executable, "-m", "predictor", "export", format, "--no-check", *given]
        environ = {"PREDICTOR_MODEL": options.model, "PREDICTOR_WEIGHTS": str(weights)}
        done = subprocess.run(
            [*command, "--out", str(folder)], cwd=ROOT, env=os.environ | environ, text=True,
            capture_output=True,
        )  # fmt: skip
        if done.returncode:
            raise Missing(
                f"{name}: the export failed: {done.stderr.strip().rpartition(chr(10))[2]}"
            )
    return folder

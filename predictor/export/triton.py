"""Triton: a model repository for its python backend, or for the ONNX Runtime of a full Triton."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from predictor.export import onnx
from predictor.export.artefact import BATCH, Answers, Run, batch, program
from predictor.export.carried import DESCRIPTION, carry, read_card
from predictor.export.options import Options
from predictor.export.subject import Subject
from predictor.models.labels import Label

TOLERANCE = 1e-4
TIMEOUT_S = 300  # to load the model, on a busy machine, and for an answer
# A batch is what waits while another is computed. Shapes are without the batch.
CONFIG = """\
name: "{name}"
{platform}
max_batch_size: {most}
output {{ name: "logits" data_type: TYPE_FP32 dims: [ {outputs} ]{labels} }}
dynamic_batching {{ }}
"""
PLATFORMS = {
    "python": 'backend: "python"\ninstance_group {{ count: 1 kind: KIND_CPU }}\n'
    'input {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] }}',
    "onnxruntime": 'platform: "onnxruntime_onnx"\n'
    'input {{ name: "images" data_type: TYPE_FP32 dims: [ {}, {}, {} ] }}',
}


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write the repository ``models``. Raise ExportError if there can be no ONNX file."""
    card, outputs = subject.card, subject.served.info.outputs
    version = folder / "models" / card.name / "1"
    version.mkdir(parents=True)
    onnx.write(subject, version, Options())
    if options.platform == "python":
        carry(version, subject.description)
        shutil.copyfile(Path(__file__).with_name("triton_model.py"), version / "model.py")
    else:
        (version / DESCRIPTION).write_text(subject.description, "utf-8")
    height, width, channels = card.input.shape
    config = CONFIG.format(
        name=card.name,
        platform=PLATFORMS[options.platform].format(channels, height, width),
        most=BATCH if subject.batchable else 1,
        outputs=outputs,
        # One output has two labels, and Triton could name only one of them.
        labels=' label_filename: "labels.txt"' if outputs == len(card.labels) else "",
    )
    (version.parent / "config.pbtxt").write_text(config, "utf-8")
    names = [f"{label.class_name}\n" for label in card.labels]
    (version.parent / "labels.txt").write_text("".join(names), "utf-8")
    return {"platform": options.platform}


@contextmanager
def runtime(folder: Path, options: Options) -> Iterator[Run]:
    """Run ``tritonserver``, and ask it over HTTP. Raise ExportError if there is none."""
    (model,) = (folder / "models").iterdir()
    with serving(folder / "models") as url:
        yield client(url, model, options)


def client(url: str, model: Path, options: Options) -> Run:
    """Ask a Triton about a model, whose folder is ``model``."""
    card, names = read_card(model / "1"), dict[int, str]()
    url = f"{url}/v2/models/{model.name}/infer"

    def run(photos: Sequence[bytes]) -> Answers:
        if options.platform == "python":
            data = b"".join(len(photo).to_bytes(4, "little") + photo for photo in photos)
            about = {"name": "image", "datatype": "BYTES", "shape": [len(photos), 1]}
        else:
            images = batch(photos, card)
            data, about = images.tobytes(), {"name": "images", "datatype": "FP32"}
            about["shape"] = images.shape
        head, content = _ask(url, about, data, {"binary_data": True})
        logits = np.frombuffer(content, "<f4").reshape(head["outputs"][0]["shape"])
        if not names:  # of all classes, as Triton knows them: "value:index:name"
            head, _ = _ask(url, about, data, {"classification": logits.shape[1]})
            found = (text.split(":", 2) for text in head["outputs"][0]["data"])
            names.update((int(index), "".join(name)) for _, index, *name in found)
        best = [card.output.best(row)[0] for row in logits]
        return Answers(logits, [Label("", names.get(index, "")) for index in best])

    return run


def _ask(
    url: str, about: dict[str, Any], data: bytes, output: dict[str, Any]
) -> tuple[dict[str, Any], bytes]:
    """Send a tensor in the protocol's binary form. Return the response's JSON and its bytes."""
    image = about | {"parameters": {"binary_data_size": len(data)}}
    asked = {"inputs": [image], "outputs": [{"name": "logits", "parameters": output}]}
    head, length = json.dumps(asked).encode(), "Inference-Header-Content-Length"
    # With the type of a form, which is urllib's default, 4 MB crash Triton 2.51.
    headers = {length: str(len(head)), "Content-Type": "application/octet-stream"}
    try:
        with urlopen(Request(url, head + data, headers), timeout=TIMEOUT_S) as answer:
            content = answer.read()
            end = int(answer.headers.get(length, len(content)))
    except HTTPError as error:
        raise ValueError(f"Triton refuses the photos: {error.read().decode()}") from error
    return json.loads(content[:end]), content[end:]


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Run ``tritonserver`` on a free port of this machine until the block ends; yield its URL."""
    advice = "docs/exports.md says how to install it; --no-check writes the files without a check."
    tritonserver = program("tritonserver", advice)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [tritonserver, f"--model-repository={repository}", "--http-address=127.0.0.1",
               f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false"]  # fmt: skip
    deadline, url = time.monotonic() + TIMEOUT_S, f"http://127.0.0.1:{port}"
    with TemporaryFile("w+", errors="replace") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while not _is_ready(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    lines = sorted(log, key=lambda line: line.startswith("E"))  # errors last
                    last = "".join(lines[-1:]).split("] ", 1)[-1]  # without time and place
                    raise ValueError(f"Triton does not load the model: {last}")
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait()


def _is_ready(url: str) -> bool:
    with suppress(OSError), urlopen(f"{url}/v2/health/ready", timeout=TIMEOUT_S):
        return True
    return False


def readme(subject: Subject, options: Options) -> str:
    """Say how to start Triton; docs/exports.md says how to ask it."""
    needs = "Its Python needs numpy, onnxruntime and pillow."
    if options.platform != "python":
        needs = "It needs the onnxruntime backend, which Triton's container has."
    return f"Start it: `tritonserver --model-repository=models`\n\n{needs}"

"""TorchServe: an archive whose handler answers as this app does at ``/predictions/{model}``."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import Request, urlopen
from zipfile import ZipFile

import numpy as np

from predictor.engine.ranking import Prediction, by_label
from predictor.errors import ExportError
from predictor.export import eager, torchscript, torchserve_handler
from predictor.export.artefact import BATCH, Answers, Run, program
from predictor.export.carried import DESCRIPTION, carry, read_card
from predictor.export.options import Options
from predictor.export.subject import Subject
from predictor.models.card import Card
from predictor.models.labels import Label

TOLERANCE = 1e-4
INSTALL = "Run: pip install torchserve torch-model-archiver pyyaml"
LOG_PROBABILITIES = True
BUILT_IN = "image_classifier"  # TorchServe's own handler
START_S, ANSWER_S = 300, 120  # the longest waits, on a busy machine
# One worker, because a network uses all processors. A batch is what came during the one before.
# `handler` are arguments of `predictor.export.carried.prepare`.
WORKER = {
    "minWorkers": 1, "maxWorkers": 1, "batchSize": BATCH, "maxBatchDelay": 1,
    "handler": {"max_pixels": 50_000_000, "max_decode_s": 15},
}  # fmt: skip
CONFIG = """\
# Paths are relative to the folder in which TorchServe starts.
model_store=.
load_models={name}={archive}
# TorchServe listens on 127.0.0.1, so requests need no token.
disable_token_authorization=true
max_request_size=20971520
"""
PORTS = dict.fromkeys(
    ("inference_address", "management_address", "metrics_address"), "http://127.0.0.1:"
) | dict.fromkeys(("grpc_inference_port", "grpc_management_port"), "")
README = """\
It needs Java 17 and `pip install torchserve torch torchvision pyyaml{captum}`. In this folder:

```sh
torchserve --start --foreground --ncs --ts-config config.properties
curl http://127.0.0.1:8080/predictions/{name} -T photo.jpg
torchserve --stop
```

{handler}"""
HANDLERS = {
    "predictor": "It answers as `predictor serve` does at `/predictions/{name}`: the five best"
    " classes, or as many as a form says (`-F data=@photo.jpg -F top_k=1`).",
    BUILT_IN: "TorchServe's handler image_classifier prepares photos in its own way, so it answers"
    " differently from `predictor serve`: `export.json` says how much.",
}


def write(subject: Subject, folder: Path, options: Options) -> dict[str, Any]:
    """Write the archive, and ``config.properties``.

    Raises:
        ExportError: torch-model-archiver is missing or fails, or the handler is for other models.
    """
    card, built_in = subject.card, options.handler == BUILT_IN
    if built_in and (card.output.activation != "softmax" or len(card.labels) < 5):
        raise ExportError(f"--handler {BUILT_IN} is for a softmax over at least 5 classes.")
    with TemporaryDirectory() as temporary:
        parts, files = Path(temporary), Path(temporary) / "files"
        carry(files, subject.description)
        names = by_label([Prediction(index, *one, 0) for index, one in enumerate(card.labels)])
        labels = {index: (card.labels[index].class_id, name) for index, name in enumerate(names)}
        (files / "index_to_name.json").write_text(json.dumps(labels))
        (parts / "worker.yaml").write_text(json.dumps(WORKER, indent=2))  # JSON is YAML
        if options.eager:
            model, notes = eager.write(subject, parts, files), {"made by": "state_dict"}
        else:
            notes = torchscript.write(subject, parts, options)
            model = {"serialized-file": parts / torchscript.FILE}
        _archive(parts, model | {
            "model-name": card.name, "export-path": folder, "config-file": parts / "worker.yaml",
            "version": f"{card.version}.0" if card.version.isdecimal() else card.version,
            "extra-files": files, "archive-format": options.archive_format,
            "handler": BUILT_IN if built_in else torchserve_handler.__file__,
        })  # fmt: skip
    archive = card.name if options.archive_format == "no-archive" else f"{card.name}.mar"
    config = CONFIG.format(name=card.name, archive=archive)
    (folder / "config.properties").write_text(config)
    return notes


def _archive(temporary: Path, given: dict[str, Any]) -> None:
    command = [
        program("torch-model-archiver", INSTALL),
        *(f"--{key}={one}" for key, one in given.items()),
    ]
    environ = os.environ | {"TMPDIR": str(temporary)}  # it works in TMPDIR/NAME
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise ExportError(f"torch-model-archiver failed: {done.stderr.strip()}")


def readme(subject: Subject, options: Options) -> str:
    """Say how to start TorchServe, and how to ask it."""
    name, captum = subject.card.name, " captum" * (options.handler == BUILT_IN)
    handler = HANDLERS[options.handler].format(name=name)
    return README.format(captum=captum, name=name, handler=handler)


@contextmanager
def runtime(folder: Path, options: Options) -> Iterator[Run]:
    """Run the archive in TorchServe. Raise ExportError as :func:`serving` does."""
    card = _card(folder)
    with serving(folder, card.name) as url:
        yield client(f"{url}/predictions/{card.name}", card.labels, options.handler == BUILT_IN)


@contextmanager
def serving(folder: Path, *names: str) -> Iterator[str]:
    """Run TorchServe on free ports of this machine until the block ends; yield its URL.

    Args:
        folder: of the archives and ``config.properties``, which says what to load.
        names: of the models to wait for.

    Raises:
        ExportError: torchserve or Java is missing, or TorchServe cannot load a model.
    """
    torchserve, ports = program("torchserve", INSTALL), free_ports()
    with TemporaryDirectory() as temporary:
        config, log = Path(temporary) / "config.properties", Path(temporary) / "log"
        own = "".join(f"{key}={value}\n" for key, value in ports.items())
        config.write_text((folder / config.name).read_text() + own)
        # Its process id, sockets, logs and unpacked models are there: two runs do not meet.
        places = ("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION")
        environ = os.environ | dict.fromkeys(places, temporary) | {"TS_CONFIG_FILE": str(config)}
        environ.pop("PYTHONPATH", None)  # its modules would come before those in the archive

        def begin(*arguments: str) -> subprocess.Popen[bytes]:
            command = [torchserve, "--foreground", *arguments]
            with log.open("ab") as file:
                return subprocess.Popen(
                    command, env=environ, cwd=temporary, stdout=file, stderr=file
                )

        server = begin("--start", "--ncs", "--model-store", str(folder.absolute()))
        try:
            for name in names:
                wait(server, f"{ports['management_address']}/models/{name}", log)
            yield ports["inference_address"]
        finally:
            while server.poll() is None:  # just after the start, TorchServe cannot be stopped yet
                begin("--stop").wait()  # the end of `server` alone would leave Java running
                with suppress(subprocess.TimeoutExpired):
                    server.wait(10)


def _card(folder: Path) -> Card:
    """Return the card in the archive, which may be a folder."""
    (archive,) = [*folder.glob("*.mar"), *(one.parent for one in folder.glob("*/MAR-INF"))]
    if archive.is_dir():
        return read_card(archive)
    return Card.from_json(json.loads(ZipFile(archive).read(DESCRIPTION)))


def free_ports() -> dict[str, str]:
    """Return free addresses and ports by their names in ``config.properties``."""
    with ExitStack() as stack:
        ports = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        found = [str(one.getsockname()[1]) for one in ports]
    return {name: url + port for (name, url), port in zip(PORTS.items(), found, strict=True)}


def wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the model is loaded. Raise ExportError if it cannot be."""
    deadline, text, errors = time.monotonic() + START_S, "", list[str]()
    while time.monotonic() < deadline and server.poll() is None and not errors:
        with suppress(OSError), urlopen(url, timeout=ANSWER_S) as answer:
            if any(one["status"] == "READY" for one in json.load(answer)[0]["workers"]):
                return
        time.sleep(0.2)
        text = log.read_text(errors="replace")
        errors = re.findall(r"MODEL_LOG - ([\w.]+(?:Error|Exception)\b.*)", text)
    reason = [f"there is no answer at {url}", *text.strip().splitlines()[-1:], *errors][-1]
    raise ExportError(f"TorchServe does not load the model: {reason}")


def client(url: str, labels: Sequence[Label], built_in: bool) -> Run:
    """Ask TorchServe: each photo in a request of its own, all at once, so that it batches them."""

    def ask(photo: bytes) -> dict[str, float]:
        request = Request(url, photo, {"Content-Type": "application/octet-stream"})
        if not built_in:  # it answers five classes
            fields = {"data": b64encode(photo).decode(), "top_k": len(labels)}
            request = Request(
                url, json.dumps(fields).encode(), {"Content-Type": "application/json"}
            )
        with urlopen(request, timeout=ANSWER_S) as answer:
            return json.load(answer)  # type: ignore[no-any-return]

    def run(photos: Sequence[bytes]) -> Answers:
        with ThreadPoolExecutor(len(photos)) as threads:
            found = [*threads.map(ask, photos)]
        logs = np.full((len(photos), len(labels)), np.nan, np.float32)
        indexes = [_indexes(answer, labels) for answer in found]
        for row, named, answer in zip(logs, indexes, found, strict=True):
            with np.errstate(divide="ignore"):
                row[named] = np.log([*answer.values()])
        return Answers(logs, [labels[best] for best, *_ in indexes])

    return run


def _indexes(names: Iterable[str], labels: Sequence[Label]) -> list[int]:
    """Return which classes are named. Of two with one name, one is named with its id."""
    ids = {f"{name} ({id})": index for index, (id, name) in enumerate(labels)}
    with_id = {ids[name] for name in names if name in ids}
    plain = {labels[i].class_name: i for i in reversed(range(len(labels))) if i not in with_id}
    return [ids[name] if name in ids else plain[name] for name in names]

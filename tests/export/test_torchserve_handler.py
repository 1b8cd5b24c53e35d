"""The handler for TorchServe, without TorchServe, beside this app's own TorchServe protocol."""

import base64
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

import bad_images
from conftest import app_of
from export.wrong import photos
from predictor.engine.classifier import Classifier
from predictor.errors import ExportError
from predictor.export import torchserve, torchserve_handler
from predictor.export.carried import carry
from predictor.export.options import Options
from predictor.export.torchscript import FILE, write
from predictor.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
GOOD = photos()[4][1]


class Context:
    """What TorchServe passes to a handler."""

    def __init__(self, folder, headers=()):
        self.system_properties = {"model_dir": str(folder), "gpu_id": None}
        self.manifest = {"model": {"serializedFile": FILE}}
        self.model_yaml_config = torchserve.WORKER
        self.headers, self.statuses, self.types = dict(headers), {}, {}

    def get_request_header(self, index, name):
        return self.headers.get(name)

    def set_response_status(self, code, phrase, index):
        self.statuses[index] = code

    def set_response_content_type(self, index, value):
        self.types[index] = value


@pytest.fixture(scope="module")
def folder(small, tmp_path_factory):
    """An archive's files."""
    folder = tmp_path_factory.mktemp("archive")
    write(small, folder, Options())
    carry(folder, small.description)
    return folder


@pytest.fixture
def ask(folder):
    """Send a batch of rows; return the JSON of each, with the status and the text."""
    handler = torchserve_handler.Handler()
    handler.initialize(Context(folder))

    def ask(*rows, **headers):
        context = Context(folder, headers)
        texts = handler.handle(rows, context)
        assert [*context.types.values()] == ["application/json"] * len(rows)
        return [
            SimpleNamespace(
                status=context.statuses.get(index, 200), text=text, json=json.loads(text)
            )
            for index, text in enumerate(texts)
        ]

    yield ask
    handler._decoders.shutdown()


@pytest.fixture(scope="module")
def server(small):
    """This app with the same model, at ``/predictions/small``."""
    settings = Settings(served_name="small")
    classifier = Classifier(settings, load=lambda *_: small.served)
    classifier.start()
    classifier.loading.result(60)
    yield app_of(classifier).test_client()
    classifier.close()


def served(server, photo, **query):
    return server.post(
        "/predictions/small", data=photo, query_string=query, content_type="image/jpeg"
    )


@pytest.mark.parametrize("top_k", [None, 1, 20])
def test_photos_get_the_answers_of_the_server(ask, server, top_k):
    data = [photo for _, photo in photos()]
    field = {"top_k": bytearray(str(top_k).encode())} if top_k else {}
    answers = ask(*({"data": bytearray(photo), **field} for photo in data))
    for answer, photo in zip(answers, data, strict=True):
        right = served(server, photo, top_k=top_k).json
        assert list(answer.json) == list(right)
        assert len(right) == (top_k or 5)
        assert answer.json == pytest.approx(right, rel=1e-4)


def test_answer_is_written_as_the_server_writes_it(ask, server):
    lines = ask({"body": bytearray(GOOD)})[0].text.splitlines(keepends=True)
    right = served(server, GOOD).text.splitlines(keepends=True)
    assert [line.split(": ")[0] for line in lines] == [line.split(": ")[0] for line in right]
    assert lines[-1] == right[-1] == "}\n"


CASES = [case for case in bad_images.BAD_IMAGES if case.status >= 400 and case.data]


def test_bad_photos_fail_as_on_the_server_and_alone(ask, server):
    rows = [{"body": bytearray(data)} for case in CASES for data in (case.data, GOOD)]
    answers = ask(*rows)
    (right,) = ask({"body": bytearray(GOOD)})
    assert all(answer.json == pytest.approx(right.json, rel=1e-5) for answer in answers[1::2])
    for case, answer in zip(CASES, answers[::2], strict=True):
        other = served(server, case.data)
        assert (case.name, answer.status) == (case.name, other.status_code)
        assert (case.name, answer.json) == (case.name, other.json)


def test_batch_of_bad_photos_only_is_answered(ask):
    assert [answer.status for answer in ask({"body": b"hello"}, {"body": b""})] == [415, 400]


def test_json_is_accepted(ask):
    text = base64.b64encode(GOOD).decode()
    (answer, plain) = ask({"body": {"data": text, "top_k": 2}}, {"body": text})
    assert len(answer.json) == 2
    assert list(plain.json)[:2] == list(answer.json)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"body": {"data": "a photo"}}, "The text is not valid base64"),
        ({"body": {"other": 1}}, "The request has no photo. Send a photo as the body"),
        ({}, "The request has no photo."),
        (
            {"body": GOOD, "top_k": bytearray(b"0")},
            "top_k is '0'; it must be a whole number of at least 1.",
        ),
        ({"body": GOOD, "top_k": bytearray(b"\xff")}, "top_k is '\ufffd'; it must be"),
    ],
)
def test_wrong_request_is_400_in_words(ask, row, message):
    (answer, good) = ask(row, {"body": GOOD})
    assert (answer.status, good.status) == (400, 200)
    assert (answer.json["code"], answer.json["type"]) == (400, "BadRequestException")
    assert answer.json["message"].startswith(message)


def test_explanation_is_501(ask):
    (answer,) = ask({"body": GOOD}, explain="True")
    assert answer.json == {
        "code": 501, "type": "NotImplementedException",
        "message": "This archive explains no answers. Use /predictions.",
    }  # fmt: skip
    assert answer.status == 501


def test_carried_files_need_no_others_of_this_app(folder):
    """Each is imported in a process whose first ``predictor`` is theirs, without torch."""
    check = f"""
import importlib, pathlib, sys
folder = pathlib.Path({str(folder)!r})
sys.path.insert(0, str(folder))
files = sorted((folder / "predictor").rglob("*.py"))
for file in files:
    importlib.import_module(".".join(file.relative_to(folder).with_suffix("").parts))
ours = [m for n, m in sys.modules.items() if n.partition(".")[0] == "predictor"]
assert all(pathlib.Path(module.__file__).is_relative_to(folder) for module in ours)
print(len(files), sorted({{"torch", "flask", "torchvision"}} & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", check], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    count, others = done.stdout.split(maxsplit=1)
    assert int(count) > 25
    assert others == "[]\n"


def test_missing_program_is_a_sentence(small, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, use in {
        "torch-model-archiver": lambda: torchserve.write(small, tmp_path, Options()),
        "torchserve": lambda: torchserve.serving(tmp_path).__enter__(),
    }.items():
        reason = f"{name} is not on the PATH. Run: pip install torchserve"
        with pytest.raises(ExportError, match=reason):
            use()

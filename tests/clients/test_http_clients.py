"""The usual HTTP clients, with their defaults, in the ways in which programs send a photo."""

import functools
import json
import shutil
import subprocess

import pytest
from PIL import Image

from clients.answers import need, run

WAYS = {
    "curl": [
        "-F file=@{}",
        "-F file=<{};type=image/png",  # a part without a file name
        "--data-binary @{}",
        "-T {}",
        "-T {} -H Transfer-Encoding:chunked",
    ],
    "python_clients": [
        "requests form",
        "requests body",
        "requests chunks",
        "httpx form",
        "httpx body",
        "httpx chunks",
        "aiohttp form",
        "aiohttp body",
    ],
    "node_clients": [
        "fetch form",
        "fetch body",
        "fetch chunks",
        "undici form",
        "undici chunks",
        "axios form",
        "axios body",
        "axios chunks",
        "axios header set by hand",
        "axios without a boundary",
        "form-data submitted",
        "form-data in chunks",
    ],
    "JavaClient": ["java form", "java body", "java put", "java chunks"],
}
each_way = pytest.mark.parametrize(
    ("program", "way"), [(program, way) for program, ways in WAYS.items() for way in ways]
)


def curl(arguments, url, file):
    """Return the status and the JSON that curl gets."""
    program = need(shutil.which("curl"), "curl", "Debian: apt-get install curl")
    command = [program, "-sS", "-w", "\n%{http_code}", url, *arguments.format(file).split(" ")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    body, status = done.stdout.rsplit("\n", 1)
    return [int(status), json.loads(body)]


@pytest.fixture(scope="module")
def answers(server, files):
    """Run a program once; return its responses to the photo, the text and the large file."""

    @functools.cache
    def ask(program):
        url = f"{server.url}/predict"
        if program == "curl":
            return {way: [curl(way, url, file) for file in files] for way in WAYS[program]}
        return run(program, url, *files)

    return ask


@each_way
def test_http_client_gets_the_class(answers, program, way):
    answer = [200, {"class_id": "n07920052", "class_name": "espresso"}]
    assert answers(program)[way][0] == answer


@each_way
def test_http_client_reads_the_refusal_of_a_text(answers, program, way):
    status, problem = answers(program)[way][1]
    # curl --data-binary and axios declare a body of unknown type as a form.
    assert (status, problem["code"]) in [(415, "unsupported-image"), (400, "bad-request")]
    assert "image" in problem["detail"]


@each_way
def test_http_client_reads_the_refusal_of_a_large_file(answers, program, way):
    """The server sends it before it has the whole body."""
    status, problem = answers(program)[way][2]
    assert status == 413
    assert "20,971,520 bytes" in problem["detail"]


@pytest.mark.parametrize("program", WAYS)
def test_every_way_in_the_program_is_tested(answers, program):
    assert answers(program).keys() == set(WAYS[program])


@pytest.mark.parametrize(
    ("kind", "status", "advice"),
    [("PNG", 413, "with curl: -F file=@photo.jpg"), ("JPEG", 422, "")],
)
def test_photo_without_its_newlines_is_an_error(server, photos, tmp_path, kind, status, advice):
    """curl -d removes carriage returns, line feeds and NULs."""
    Image.open(photos[0]).save(tmp_path / "photo", kind)
    answer = curl("-d @{}", f"{server.url}/predict", tmp_path / "photo")
    assert answer[0] == answer[1]["status"] == status
    assert advice in answer[1]["detail"]

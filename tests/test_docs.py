"""The documents tell the truth; where one does not, the failure names the file to edit."""

import os
import re
import subprocess
import threading
from collections import Counter
from contextlib import closing

import pytest
import requests

from conftest import app_of
from paths import ROOT
from pictures import picture
from predictor.api import SharedClassifier
from predictor.engine.classifier import Classifier
from predictor.server.background import BackgroundServer
from predictor.settings import GROUPS, PREFIX, Settings, rows
from predictor.share import NAMES, publish
from test_errors import tree
from tools import settings_doc
from toy import toy_model
from tunnels import use_modules
from waiting import wait_until

FILES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "README.md"]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
ADDRESS = "http://127.0.0.1:5000"
ALL = "".join(text for name, text in TEXTS.items() if name != "CHANGELOG.md")
ROUTES = TEXTS["docs/api.md"] + TEXTS["docs/protocols.md"]
PYTHON = [
    (name, code)
    for name, text in TEXTS.items()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
]


def section(name, title):
    """The part of a document below a heading."""
    return TEXTS[name].split(f"## {title}\n")[1].split("\n## ")[0]


# README


def test_the_readme_is_short():
    assert TEXTS["README.md"].count("\n") <= 150, "README.md: move something to docs/"
    assert len(TEXTS["README.md"].split()) <= 1800, "README.md: move something to docs/"


def test_every_document_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([\w/-]+\.md)\)", TEXTS["README.md"]))
    assert TEXTS.keys() - linked == {"README.md"}, "README.md: the last list lacks a document"


def test_pictures_exist_and_are_small():
    pictures = [ROOT / name for name in re.findall(r'<img src="([^"]+)"', TEXTS["README.md"])]
    assert len(pictures) == 2
    assert [picture for picture in pictures if picture.stat().st_size > 150_000] == []


# Settings


def test_settings_page_is_up_to_date():
    message = "docs/settings.md: run `python -m tools.settings_doc`"
    assert TEXTS["docs/settings.md"] == settings_doc.page(), message


def test_every_setting_has_a_group():
    assert {row.metadata["group"] for row in rows()} == set(GROUPS)


@pytest.mark.parametrize("name", sorted(TEXTS.keys() - {"CHANGELOG.md"}))
def test_every_setting_named_exists(name):
    named = set(re.findall(rf"\b{PREFIX}([A-Z_]+)\b", TEXTS[name]))
    unknown = named - {row.name.upper() for row in rows()}
    assert unknown == set(), f"{name} names settings that predictor/settings.py does not have"


# Routes, errors, metrics


@pytest.fixture
def app(make_app):
    return make_app(management_tokens=("correct-horse-battery",))


def rules(app):
    rules = {rule.rule for rule in app.url_map.iter_rules() if not rule.endpoint.endswith("static")}
    return {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule) for rule in rules}


def routes_in(text):
    """The routes that a text names; an optional part, as in `GET /a[/b]`, makes two of one."""
    for written in re.findall(r"`(?:GET|POST|PUT|OPTIONS) (/[^` ?]*)[^`]*`", text):
        before, _, after = written.partition("[")
        optional, _, rest = after.partition("]")
        yield from {before + rest, before + optional + rest}


def test_every_route_is_documented(app):
    missing = rules(app) - set(routes_in(ROUTES))
    assert missing == set(), "add a row to docs/api.md, or of a protocol to docs/protocols.md"


def test_every_route_named_exists(app):
    unknown = set(routes_in(ALL)) - rules(app)
    assert unknown == set(), "docs/api.md or docs/protocols.md names routes that are not served"


def test_every_error_code_is_documented():
    errors = [error for error in tree() if error.__module__ == "predictor.errors"]
    codes = {error.code for error in errors} - {
        "client-gone",
        "not-started",
        "send-timeout",
    }  # in no answer
    missing = {code for code in codes if f"`{code}`" not in section("docs/api.md", "Errors")}
    assert missing == set(), "add the codes to docs/api.md, section Errors"


def test_every_metric_is_documented(client):
    client.post("/predict", data=picture())
    served = set(re.findall(r"# TYPE (predictor_\w+)", client.get("/metrics").text))
    assert len(served) > 10
    named = set(re.findall(r"`(predictor_\w+)`", TEXTS["docs/monitoring.md"]))
    assert served - named == set(), "add a row to docs/monitoring.md, section Metrics"
    assert named - served == set(), "docs/monitoring.md names metrics that do not exist"


# Files, commands, links


def test_every_file_in_the_architecture_exists():
    packages = section("docs/architecture.md", "Packages")
    names = re.findall(r"`([\w./]+(?:\.py|/))`", packages)
    assert len(names) > 15
    missing = [n for n in names if not any((r / n).exists() for r in (ROOT, ROOT / "predictor"))]
    assert missing == [], "docs/architecture.md, section Packages, names files that do not exist"


def test_every_package_is_in_the_architecture():
    there = {f"`{p.parent.name}/`" for p in (ROOT / "predictor").glob("*/__init__.py")}
    missing = {name for name in there if name not in section("docs/architecture.md", "Packages")}
    assert missing == set(), "add a row to docs/architecture.md, section Packages"


def test_every_make_target_named_exists():
    targets = set(re.findall(r"(?:`|^|cpu )make (\w+)", ALL, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert len(targets) > 4
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(name):
    for target, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", TEXTS[name]):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), f"{name} links {target}, which does not exist"
        if heading:
            headings = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]
            assert heading in anchors, f"{name} links {target}#{heading}, which does not exist"


@pytest.mark.parametrize("name", TEXTS)
def test_every_test_named_exists(name):
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {test for f in files for test in re.findall(r"^def (test_\w+)", f.read_text(), re.M)}
    there |= {file.name.removesuffix(".py") for file in files}
    missing = set(re.findall(r"\btest_\w+", TEXTS[name])) - there
    assert missing == set(), f"{name} names tests that do not exist"


def test_every_test_file_has_a_name_of_its_own():
    """Or pytest cannot collect two of them in one run, as `make check` does."""
    names = Counter(file.name for file in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, files in names.items() if files > 1] == []


# Examples


def test_every_python_example_is_tested():
    tested = ["README.md", "docs/api.md", "docs/notebooks.md", "docs/protocols.md"]
    tested += ["docs/your-model.md"]  # in tests/models/
    assert sorted({name for name, _ in PYTHON}) == tested


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A loaded classifier in place of the package's own, and a photo in the current folder."""
    (tmp_path / "photo.jpg").write_bytes(picture("red"))
    monkeypatch.chdir(tmp_path)
    classifier = Classifier(Settings(), load=lambda *_: toy_model())
    classifier.start()
    classifier.loading.result(timeout=10)
    monkeypatch.setattr("predictor.api.shared", SharedClassifier(lambda: classifier))
    yield classifier
    classifier.close()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
def test_the_python_example_prints_the_class(name, capsys):
    exec(dict(PYTHON)[name], {})
    assert "red_thing" in capsys.readouterr().out


@pytest.fixture
def server(toy):
    """The toy app, served."""
    with closing(BackgroundServer(app_of(toy), "127.0.0.1", 0)) as server:
        yield server


def test_the_python_example_reads_the_binary_answer(server, capsys):
    exec(dict(PYTHON)["docs/protocols.md"].replace(ADDRESS, server.url), {})
    assert capsys.readouterr().out == "[1, 3] 0\n"


CURL = [
    pytest.param(code, id=f"{name}-{number}")
    for name in ("docs/api.md", "docs/protocols.md")
    for number, code in enumerate(re.findall(r"```sh\n(.*?)```", TEXTS[name], re.DOTALL))
    if "curl" in code
]


@pytest.mark.parametrize("code", CURL)
def test_the_curl_examples_are_answered(server, code, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(picture("green"))
    (tmp_path / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    code = code.replace(ADDRESS, server.url).replace("class_index=285", "class_index=2")
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", code],
        env=os.environ | {"CURL_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "_thing" in done.stdout


def test_the_notebook_example_serves_the_app(monkeypatch, app):
    use_modules(monkeypatch)
    monkeypatch.setenv("NGROK_AUTHTOKEN", "a-token")
    monkeypatch.setattr("app.create_app", lambda: app)
    cell = threading.Thread(target=exec, args=(dict(PYTHON)["docs/notebooks.md"], {}))
    cell.start()
    url = wait_until(lambda: app.config.get("PUBLIC_URL"))
    answer = requests.post(f"{url}/predict", data=picture("red"), timeout=10)
    assert answer.json()["class_name"] == "red_thing"
    publish(app, port=5000).close()  # as if the cell were run again
    cell.join(10)
    assert not cell.is_alive()


def test_tunnel_providers_are_documented_in_their_order():
    rows = re.findall(r"^\| `([a-z-]+)` \| [^|]* \|$", TEXTS["docs/notebooks.md"], re.MULTILINE)
    assert rows == list(NAMES[1:]), "docs/notebooks.md: correct the table of providers"


# Tables of tests


def test_every_threat_in_security_md_has_a_test():
    rows = re.findall(r"^\| .*", TEXTS["SECURITY.md"], re.MULTILINE)
    threats = [row for row in rows if not row.startswith("| Threat ")]
    assert len(threats) > 20
    untested = [row for row in threats if "`test_" not in row.split(" | ")[2]]
    assert untested == [], "SECURITY.md: name a test in the last column"


def test_every_complaint_has_a_test_or_a_reason():
    text = TEXTS["tests/README.md"]
    rows = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", text, re.MULTILINE))
    assert list(map(int, rows)) == list(range(1, 28))
    assert [n for n, shown in rows.items() if not re.match("`test_|Not built: ", shown)] == []
    named = re.findall(r"`([\w/]+\.py)`", text)
    there = {str(path) for path in ROOT.glob("[pt]*/**/*.py")}
    missing = [name for name in named if not any(path.endswith(f"/{name}") for path in there)]
    assert missing == [], "tests/README.md names files that do not exist"

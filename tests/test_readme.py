"""The README tells the truth."""

import re
import threading
from dataclasses import fields

import pytest
import requests

import predictor
from conftest import toy_model
from paths import ROOT
from pictures import picture
from predictor.engine.classifier import Classifier
from predictor.settings import PREFIX, Settings
from predictor.share import NAMES, publish
from tunnels import use_modules
from waiting import wait_until

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_in_the_table(setting):
    written = {"None": "auto", "()": "none", "False": "false"}
    default = written.get(str(setting.default), str(setting.default))
    row = f"| `{PREFIX}{setting.name.upper()}` | `{default}` | {setting.metadata['help']} |"
    assert row in README


def test_every_setting_it_names_is_one():
    named = set(re.findall(rf"{PREFIX}([A-Z_]+)", README))
    assert named == {field.name.upper() for field in fields(Settings)}


def test_every_address_is_in_the_readme(app):
    rules = {rule.rule for rule in app.url_map.iter_rules() if not rule.endpoint.endswith("static")}
    rules = {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule) for rule in rules}
    assert rules - set(addresses()) == set()


def addresses():
    """What README writes with an optional part, as in `GET /a[/b]`, is two addresses."""
    for written in re.findall(r"`[A-Z|]+ (/[^` ?]*)[^`]*`", README):
        before, _, after = written.partition("[")
        optional, _, rest = after.partition("]")
        yield from {before + rest, before + optional + rest}


def test_every_metric_is_in_the_readme(client):
    client.post("/predict", data=picture())
    described = re.findall(r"# TYPE (predictor_\w+)", client.get("/metrics").text)
    assert len(described) > 10
    assert [name for name in described if f"`{name}`" not in README] == []
    named = set(re.findall(r"`(predictor_\w+)`", README))
    assert named == set(described)


def test_every_file_it_names_is_there():
    layout = README.split("```\napp.py")[1].split("```")[0]
    names = re.findall(r"[\w./]+(?:\.py|/)(?=[\s,])", "app.py" + layout)
    assert len(names) > 15
    there = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    assert [n for n in names if not any(f"/{p}".endswith(f"/{n.rstrip('/')}") for p in there)] == []


def test_every_picture_it_shows_is_there_and_small():
    pictures = [ROOT / name for name in re.findall(r'<img src="([^"]+)"', README)]
    assert len(pictures) == 2
    assert [picture for picture in pictures if picture.stat().st_size > 150_000] == []


def test_every_make_target_it_names_is_one():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake (\w+)", README))
    assert targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_its_python_runs(monkeypatch, tmp_path, capsys):
    code, _ = PYTHON
    (tmp_path / "photo.jpg").write_bytes(picture("red"))
    monkeypatch.chdir(tmp_path)
    classifier = Classifier(Settings(), load=lambda *_: toy_model())
    classifier.start()
    classifier.loading.result(timeout=10)
    monkeypatch.setattr(predictor, "_classifier", lambda: classifier)
    exec(code, {})
    assert "red_thing" in capsys.readouterr().out
    classifier.close()


def test_its_two_lines_share_the_app(monkeypatch, app):
    _, code = PYTHON
    use_modules(monkeypatch)
    monkeypatch.setenv("NGROK_AUTHTOKEN", "a-token")
    monkeypatch.setattr("app.create_app", lambda: app)
    cell = threading.Thread(target=exec, args=(code, {}))
    cell.start()
    url = wait_until(lambda: app.config.get("PUBLIC_URL"))
    answer = requests.post(f"{url}/predict", data=picture("red"), timeout=10)
    assert answer.json()["class_name"] == "red_thing"
    publish(app, port=5000).close()  # as if the cell were run again
    cell.join(10)
    assert not cell.is_alive()


def test_the_providers_are_in_the_readme_in_their_order():
    rows = re.findall(r"^\| `([a-z-]+)` \| [^|]* \|$", README, re.MULTILINE)
    assert rows == list(NAMES[1:])


def test_every_threat_in_security_md_has_tests_that_are_there():
    rows = re.findall(r"^\| .*", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    threats = [row for row in rows if not row.startswith("| Threat ")]
    assert len(threats) > 20
    assert [row for row in threats if "`test_" not in row.split(" | ")[2]] == []
    assert missing_tests("".join(threats)) == set()


def test_every_complaint_in_the_tests_readme_has_tests_that_are_there_or_a_reason():
    text = (ROOT / "tests" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| .* \| (.*) \|$", text, re.MULTILINE))
    assert list(map(int, rows)) == list(range(1, 28))
    assert [n for n, shown in rows.items() if not re.match("`test_|Not built: ", shown)] == []
    assert missing_tests(text) == set()
    named = re.findall(r"`(\w+\.py)`", text)
    assert [name for name in named if not any((ROOT / "tests").rglob(name))] == []


def missing_tests(text):
    """Tests that are named and are not there."""
    files = (ROOT / "tests").rglob("test_*.py")
    there = {name for f in files for name in re.findall(r"^def (test_\w+)", f.read_text(), re.M)}
    return set(re.findall(r"`(test_\w+)`", text)) - there

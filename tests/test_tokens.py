"""Tokens in a file that changes while the app runs."""

import logging

import pytest

from predictor.errors import SettingsError
from predictor.tokens import TokensFile
from web.access import OTHER, TOKEN, bearer


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(TOKEN)
    return path


def test_a_changed_file_is_read_again_and_its_tokens_are_not_logged(file, caplog):
    caplog.set_level(logging.INFO)
    tokens = TokensFile(str(file))
    assert list(tokens) == [TOKEN]
    tokens.follow()
    assert caplog.text == ""
    file.write_text(f"{OTHER}\n{TOKEN}\n")
    tokens.follow()
    assert list(tokens) == [OTHER, TOKEN]
    assert f"'{file}' has changed. Valid tokens in it: 2" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "the file has no token"),
        ("short", "line 1 has fewer than 16 characters"),
        (None, "the file cannot be read"),
    ],
)
def test_a_broken_tokens_file_changes_nothing_and_names_the_file(file, content, sentence):
    tokens = TokensFile(str(file))
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(SettingsError, match=f"'{file}': .*{sentence}"):
        tokens.follow()
    assert list(tokens) == [TOKEN]


def test_tokens_of_the_app_follow_the_file_from_the_first_request(serve, file):
    client = serve(tokens_file=file)
    file.write_text(OTHER)
    statuses = [client.get("/", headers=bearer(token)).status_code for token in (TOKEN, OTHER)]
    assert statuses == [401, 200]


def test_a_broken_tokens_file_changes_nothing_and_is_logged_once(serve, file, caplog):
    client = serve(tokens_file=file)
    file.write_text("")
    for _ in range(2):
        assert client.get("/", headers=bearer(TOKEN)).status_code == 200
        assert client.get("/").status_code == 401
    assert caplog.text.count("the file has no token") == 1


def test_a_token_on_another_line_keeps_its_rate(serve, file, monkeypatch):
    """Rates count by token, and not by its line, which changes when others are removed."""
    file.write_text(f"{TOKEN}\n{OTHER}")
    client = serve(tokens_file=file, rate_limit="1/day")
    (tokens,) = client.application.extensions["predictor"].settings.tokens_files
    assert client.post("/predict", headers=bearer(TOKEN)).status_code == 400
    file.write_text(OTHER)
    tokens.follow()
    assert client.post("/predict", headers=bearer(OTHER)).status_code == 400
    assert client.post("/predict", headers=bearer(OTHER)).status_code == 429

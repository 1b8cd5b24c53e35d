import subprocess
import sys

import pytest

from predictor.errors import SettingsError
from predictor.settings import Settings

ONE, TWO = "correct-horse-battery", "staple.0123456789=="


def settings(**values):
    return Settings.from_env({f"PREDICTOR_{name.upper()}": text for name, text in values.items()})


def test_tokens_are_read_from_the_environment_or_a_file(tmp_path):
    (tmp_path / "tokens").write_text(f"\ufeff# the mobile app\n{ONE}\n\n  {TWO}  \n", "utf-8")
    assert settings(tokens=f"{ONE}, {TWO}").tokens == (ONE, TWO)
    assert settings(tokens_file=str(tmp_path / "tokens")).all_tokens == (ONE, TWO)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("letmein", "token 1 has fewer than 16 characters", id="short"),
        pytest.param(f"{ONE},", "token 2 has fewer than 16 characters", id="comma at the end"),
        pytest.param("correct horse battery", "token 1 may contain only letters", id="blank"),
        pytest.param("correct-hörse-battery", "token 1 may contain only letters", id="umlaut"),
        pytest.param(f"{ONE};{TWO}", "token 1 may contain only letters", id="semicolon"),
    ],
)
def test_an_invalid_token_is_an_error_that_does_not_quote_it(text, sentence):
    with pytest.raises(SettingsError, match=sentence) as stopped:
        settings(tokens=text)
    assert not any(part in str(stopped.value) for part in ("letmein", "correct", "staple"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(None, "No such file", id="missing"),
        pytest.param(b"", "no token", id="empty"),
        pytest.param(b"# tokens follow\n\n", "no token", id="comments"),
        pytest.param(f"{ONE}\nletmein\n".encode(), "line 2 has fewer than 16", id="short"),
        pytest.param(f"{ONE} # mine\n".encode(), "line 1 may contain only letters", id="blank"),
        pytest.param(b"\xff\xfe\x00" * 20, "is not UTF-8 text", id="binary"),
    ],
)
def test_an_invalid_token_file_is_an_error_with_its_path(tmp_path, content, sentence):
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"PREDICTOR_TOKENS_FILE='{path}': .*{sentence}") as e:
        settings(tokens_file=str(path))
    assert ONE not in str(e.value)


def test_a_folder_in_place_of_a_token_file_is_an_error(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        settings(tokens_file=str(tmp_path))


def test_printed_settings_contain_no_token(tmp_path):
    (tmp_path / "tokens").write_text(TWO)
    shown = repr(settings(tokens=ONE, tokens_file=str(tmp_path / "tokens")))
    assert "vgg16" in shown
    assert ONE not in shown
    assert TWO not in shown


def test_none_means_no_tokens_rates_or_origins():
    assert settings(tokens="none", rate_limit="none", cors_origins="none") == Settings()


def test_rates_are_separated_by_semicolons():
    rates = settings(rate_limit="10/second;1000/hour").rate_limit
    assert [(rate.amount, rate.get_expiry()) for rate in rates] == [(10, 1), (1000, 3600)]


@pytest.mark.parametrize("text", ["often", "60", "60/fortnight", "-1/minute", "0/minute"])
def test_an_invalid_rate_is_an_error_that_quotes_it(text):
    with pytest.raises(SettingsError, match=f"PREDICTOR_RATE_LIMIT='{text}': a rate"):
        settings(rate_limit=text)


@pytest.mark.slow
@pytest.mark.parametrize(("environ", "imported"), [({}, 0), ({"RATE_LIMIT": "1/day"}, 1)])
def test_the_rate_limiter_is_imported_only_for_a_rate_limit(environ, imported):
    check = "import sys, app; app.create_app(); sys.exit('limits' in sys.modules)"
    environ = {f"PREDICTOR_{name}": text for name, text in environ.items()}
    done = subprocess.run([sys.executable, "-c", check], env=environ, timeout=60)
    assert done.returncode == imported


@pytest.mark.parametrize("name", ["flowers", "cat-dog_2.0", "7"])
def test_a_valid_served_name_is_accepted(name):
    assert settings(served_name=name).served_name == name


@pytest.mark.parametrize("name", ["a/b", "a b", "-a", "ä", "a:b", "a" * 129])
def test_an_invalid_served_name_is_an_error(name):
    with pytest.raises(SettingsError, match="PREDICTOR_SERVED_NAME=.*letters, digits"):
        settings(served_name=name)


@pytest.mark.parametrize("port", ["8_498", " 8498", "+8498", "0", "65536", "٨", ""])
def test_a_port_is_written_in_plain_digits(port):
    text = f"127.0.0.1:{port}"
    with pytest.raises(SettingsError, match="write an IP address and a port"):
        settings(management_bind=text, store="x", management_tokens=ONE)

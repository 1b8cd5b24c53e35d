import subprocess
import sys

import pytest

from paths import ROOT
from predictor.errors import SettingsError
from predictor.setting_rules import REMOVED
from predictor.settings import DEVELOPMENT, SERVICE_VARIABLE, Settings, rows


def test_without_environment_variables_the_defaults_apply():
    assert Settings.from_env({"PATH": "/bin"}) == Settings()


def test_by_default_a_batch_does_not_wait_to_fill():
    assert Settings.from_env({}).max_batch_delay_ms == 0


def test_values_have_the_type_of_their_setting():
    environ = {
        "PREDICTOR_MODEL": "resnet18",
        "PREDICTOR_MAX_BATCH_SIZE": "4",
        "PREDICTOR_MAX_BATCH_DELAY_MS": "2.5",
        "PREDICTOR_TORCH_THREADS": "3",
    }
    expected = Settings(model="resnet18", max_batch_size=4, max_batch_delay_ms=2.5, torch_threads=3)
    assert Settings.from_env(environ) == expected


@pytest.mark.parametrize(
    ("text", "switch"), [("true", True), ("1", True), ("False", False), ("0", False)]
)
def test_a_switch_is_true_or_false(text, switch):
    assert Settings.from_env({"PREDICTOR_EXACT_DECODE": text}).exact_decode is switch


def test_an_empty_value_counts_as_not_set():
    assert Settings.from_env({"PREDICTOR_WEIGHTS": " "}) == Settings()


def test_auto_is_none_where_the_default_is_none():
    assert Settings.from_env({"PREDICTOR_TORCH_THREADS": "auto"}).torch_threads is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_QUEUE", "many"),
        ("MAX_BATCH_SIZE", "0"),
        ("MAX_QUEUE", "2.5"),
        ("MAX_BATCH_DELAY_MS", "-1"),
        ("MAX_BATCH_DELAY_MS", "nan"),
        ("REQUEST_TIMEOUT_S", "inf"),
        ("PRECISION", "float8"),
        ("TORCH_THREADS", "all"),
        ("TORCH_THREADS", "99999999999"),
        ("REQUEST_TIMEOUT_S", "1e300"),
        ("MAX_QUEUE", "9" * 400),
        ("MAX_QUEUE", "8".translate({56: 0xFF18})),
        ("MAX_QUEUE", "1_0"),
        ("EXACT_DECODE", "maybe"),
        ("MAX_PIXELS", "178956971"),
    ],
)
def test_an_invalid_value_is_an_error_that_quotes_it(name, value):
    with pytest.raises(SettingsError, match=f"PREDICTOR_{name}='{value}'"):
        Settings.from_env({f"PREDICTOR_{name}": value})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("PREDICTOR_MODLE", "Did you mean PREDICTOR_MODEL?"),
        ("PREDICTOR_MAX_BATCH", "Did you mean PREDICTOR_MAX_BATCH_SIZE?"),
        ("PREDICTOR_FOO", "The settings are PREDICTOR_MODEL, "),
    ],
)
def test_an_unknown_setting_is_an_error_with_a_suggestion(name, advice):
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({name: "vgg16"})
    assert str(refused.value).startswith(f"There is no setting {name}. {advice}")


@pytest.mark.parametrize("name", ["predictor_model", "Predictor_Model", "PREDICTOR_"])
def test_the_prefix_in_lower_case_is_an_error_too(name):
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: "vgg16"})


@pytest.mark.parametrize("value", ["1", ""])
@pytest.mark.parametrize(("name", "advice"), REMOVED.items())
def test_a_removed_setting_is_an_error_that_says_what_to_do(name, advice, value):
    with pytest.raises(SettingsError) as stopped:
        Settings.from_env({name: value})
    assert name in str(stopped.value)
    assert advice in str(stopped.value)


def test_a_removed_setting_is_not_in_the_table():
    assert not REMOVED.keys() & {f"PREDICTOR_{row.name.upper()}" for row in rows()}


@pytest.mark.parametrize("name", ["PREDICTOR_INFERENCE_THREADS", "PREDICTOR_MAX_RECEIVE_BYTES"])
def test_the_advice_on_a_removed_setting_names_its_successor(name):
    successors = {f"PREDICTOR_{row.name.upper()}" for row in rows()}
    assert any(successor in REMOVED[name] for successor in successors)


ONE_MODEL = [row.name for row in rows() if row.metadata["group"] == "model" and row.name != "store"]


@pytest.mark.parametrize("name", ONE_MODEL)
def test_setting_of_one_model_beside_a_store_stops_the_start(name):
    name = f"PREDICTOR_{name.upper()}"
    with pytest.raises(SettingsError, match=f"{name} describes one model, but PREDICTOR_STORE"):
        Settings.from_env({"PREDICTOR_STORE": "models", name: "vgg16"})


def test_settings_that_say_nothing_may_stand_beside_a_store():
    nothing = {"PREDICTOR_WEIGHTS": "auto", "PREDICTOR_FALLBACK_MODEL": "none", "PREDICTOR_STD": ""}
    for beside in (nothing, DEVELOPMENT, {"PREDICTOR_DEVICE": "cpu"}):
        assert Settings.from_env({"PREDICTOR_STORE": "models", **beside}).store == "models"


def test_without_a_store_the_other_settings_describe_the_model():
    environ = {"PREDICTOR_STORE": "none", "PREDICTOR_MODEL": "resnet18"}
    assert Settings.from_env(environ).model == "resnet18"


# As Kubernetes sets them for Services with these names.
SERVICES = {
    "predictor": {
        "PREDICTOR_SERVICE_HOST": "10.0.0.1",
        "PREDICTOR_SERVICE_PORT": "80",
        "PREDICTOR_SERVICE_PORT_HTTP_METRICS": "9100",
        "PREDICTOR_PORT": "tcp://10.0.0.1:80",
        "PREDICTOR_PORT_80_TCP": "tcp://10.0.0.1:80",
        "PREDICTOR_PORT_80_TCP_PROTO": "tcp",
        "PREDICTOR_PORT_80_TCP_PORT": "80",
        "PREDICTOR_PORT_80_TCP_ADDR": "10.0.0.1",
    },
    "predictor-web": {
        "PREDICTOR_WEB_SERVICE_HOST": "fd00::1",
        "PREDICTOR_WEB_PORT": "udp://[fd00::1]:53",
        "PREDICTOR_WEB_PORT_53_UDP_ADDR": "fd00::1",
    },
    "predictor-model": {
        "PREDICTOR_MODEL_SERVICE_PORT": "80",
        "PREDICTOR_MODEL_PORT": "sctp://10.0.0.1:80",
    },
    "predictor-service": {
        "PREDICTOR_SERVICE_SERVICE_HOST": "10.0.0.1",
        "PREDICTOR_SERVICE_PORT": "tcp://10.0.0.1:80",
        "PREDICTOR_SERVICE_PORT_80_TCP": "tcp://10.0.0.1:80",
    },
    "unset by hand": {"PREDICTOR_PORT": "", "PREDICTOR_SERVICE_HOST": ""},
}


@pytest.mark.parametrize("variables", SERVICES.values(), ids=SERVICES)
def test_variables_of_kubernetes_services_are_not_settings(variables):
    assert Settings.from_env(variables) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("PREDICTOR_PORT", "8080", "Did you mean PORT, which has no prefix?"),
        ("PREDICTOR_HOST", "0.0.0.0", "Did you mean HOST, which has no prefix?"),
        ("PREDICTOR_WEB_CONCURRENCY", "2", "Did you mean WEB_CONCURRENCY, which has no prefix?"),
        ("PREDICTOR_SERVICE_NAME", "10.0.0.1", "There is no setting PREDICTOR_SERVICE_NAME."),
        ("PREDICTOR_SERVED_NAM", "tcp://10.0.0.1:80", "Did you mean PREDICTOR_SERVED_NAME?"),
        ("predictor_port", "tcp://10.0.0.1:80", "Did you mean PORT"),
    ],
)
def test_what_only_resembles_a_service_variable_is_an_error(name, value, advice):
    with pytest.raises(SettingsError, match=advice.replace("?", r"\?")):
        Settings.from_env({name: value})


def test_no_setting_is_named_like_a_service_variable():
    """Such a setting would be ignored if its value looks like an address."""
    values = ["10.0.0.1", "80", "tcp", "tcp://10.0.0.1:80"]
    settings = [f"PREDICTOR_{row.name.upper()}={value}" for row in rows() for value in values]
    assert [setting for setting in settings if SERVICE_VARIABLE.fullmatch(setting)] == []


@pytest.mark.parametrize("text", ['"a"', "'a'", " a ", "a\r", '"a"\r\n', '" a "', "\ta\u00a0"])
def test_quotes_and_blanks_around_a_value_are_taken_off(text):
    assert Settings.from_env({"PREDICTOR_MODEL": text}).model == "a"


@pytest.mark.parametrize("text", ['"a', "a'", "\"a'", '"', '"a","b"', "it's"])
def test_other_quotes_belong_to_the_value(text):
    assert Settings.from_env({"PREDICTOR_MODEL": text}).model == text


def test_a_value_of_quotes_alone_counts_as_not_set():
    assert Settings.from_env({"PREDICTOR_MODEL": '""'}) == Settings()


def test_quoted_tokens_are_the_tokens():
    settings = Settings.from_env({"PREDICTOR_TOKENS": '"a-token-of-22-characters"\r'})
    assert settings.tokens == ("a-token-of-22-characters",)


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Settings().model = "resnet18"


def run(code, **environ):
    """Run code in a new process, where no settings have been handed on; what it prints."""
    code = f"import os; from predictor.settings import *; {code}"
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, cwd=ROOT, env=environ, text=True, timeout=60).strip()


def test_current_settings_reads_the_environment():
    assert run("print(current_settings().model)", PREDICTOR_MODEL="resnet18") == "resnet18"


def test_settings_handed_on_last_replace_the_environment():
    code = "hand_on(Settings(model='a')); hand_on(Settings(model='b')); "
    assert run(code + "print(current_settings().model)", PREDICTOR_MAX_QUEUE="invalid") == "b"


def test_a_forked_worker_gets_the_settings_handed_on():
    code = "hand_on(Settings(model='a')); os.fork() and os.wait(); "
    assert run(code + "print(current_settings().model, flush=True)").split() == ["a", "a"]

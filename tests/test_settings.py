import pytest

from predictor.errors import SettingsError
from predictor.settings import Settings


def test_without_an_environment_the_defaults_hold():
    assert Settings.from_env({"PATH": "/bin"}) == Settings()


def test_nobody_waits_for_company_unless_the_operator_says_so():
    assert Settings.from_env({}).max_batch_delay_ms == 0


def test_values_have_their_columns_type():
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


def test_auto_is_none_where_the_default_is():
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
def test_a_value_that_means_nothing_stops_the_start_and_is_quoted(name, value):
    with pytest.raises(SettingsError, match=f"PREDICTOR_{name}='{value}'"):
        Settings.from_env({f"PREDICTOR_{name}": value})


def test_a_name_that_nobody_reads_stops_the_start_and_its_likeness_is_named():
    with pytest.raises(SettingsError, match="PREDICTOR_MODLE.*PREDICTOR_MODEL"):
        Settings.from_env({"PREDICTOR_MODLE": "vgg16"})


@pytest.mark.parametrize("name", ["predictor_model", "Predictor_Model", "PREDICTOR_"])
def test_the_prefix_in_small_letters_is_a_typo_too(name):
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: "vgg16"})


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        Settings().model = "resnet18"

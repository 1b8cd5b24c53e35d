"""What ``import predictor`` offers."""

import subprocess
import sys

import pytest

import predictor
from paths import ROOT


def test_the_public_names_are_these():
    assert predictor.__all__ == [
        "BestClass",
        "Classifier",
        "Prediction",
        "PredictorError",
        "Settings",
        "create_app",
        "export",
        "get_prediction",
        "get_predictions",
    ]


def test_every_public_name_can_be_imported():
    names = {}
    exec("from predictor import *", names)
    assert set(predictor.__all__) <= names.keys()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'get_class'"):
        predictor.get_class  # noqa: B018


@pytest.mark.parametrize("module", ["predictor", "predictor.settings"])
def test_importing_the_package_or_its_settings_loads_no_numpy(module):
    check = f"import sys, {module}; print({{'numpy', 'PIL', 'flask'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_importing_get_prediction_loads_no_torch():
    check = "import sys; from predictor import get_prediction; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr

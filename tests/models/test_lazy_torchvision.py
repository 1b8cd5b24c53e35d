import subprocess
import sys

import pytest
import torch
import torchvision

pytestmark = pytest.mark.slow
SERVE = """
import sys
from predictor.engine.classifier import Classifier
from predictor.settings import Settings
for model, weights in {models}.items():
    classifier = Classifier(Settings(model=model, weights=weights))
    classifier.start()
    classifier.loading.result()
    classifier.close()
    print(model, [name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


# Importing torch takes most of the time, so the programs run in forks of one process.
FORKS = """
import os
import torch
for program in {programs}:
    if os.fork() == 0:
        exec(program, {{}})
        raise SystemExit
    assert os.wait()[1] == 0
"""


def run(*programs):
    """Run each program in a process that has imported torch; return the lines that they print."""
    command = [sys.executable, "-c", FORKS.format(programs=programs)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_serving_a_model_does_not_import_the_compiler(tmp_path):
    """Importing torchvision or initialising weights would import it."""
    models = {"efficientnet_lite0": "auto"}
    for name in ("squeezenet1_1", "resnet18", "vgg11"):
        with torch.device("meta"):  # random weights would take seconds
            state = torchvision.models.get_model(name).state_dict()
        models[name] = str(tmp_path / f"{name}.pth")
        zeros = {key: torch.zeros_like(value, device="cpu") for key, value in state.items()}
        torch.save(zeros, models[name])
    assert run(SERVE.format(models=models)) == [f"{name} []" for name in models]


DEFERRED = """
import sys
from predictor.models.lazy_torchvision import torchvision
import torch
assert "torch._dynamo.utils" not in sys.modules
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).flatten().tolist())
print(torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu"))
print("torch._dynamo.utils" in sys.modules)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
"""
COMPILER_FIRST_OR_LAST = (
    "import torch._dynamo.utils; import predictor.models.lazy_torchvision",
    "import predictor.models.lazy_torchvision; import torch._dynamo.utils",
    # as a torchvision that needs the whole compiler would
    "import sys; from predictor.models import lazy_torchvision as lazy;"
    "sys.modules[lazy.COMPILER] = lazy.Deferred(lazy.COMPILER); import torch._dynamo",
)
COMPILER = "\nfrom torch._dynamo.utils import counters, __file__ as f\nprint(f)"


def test_the_compiler_is_real_when_a_function_or_others_import_it():
    *deferred, first, last, whole = run(
        DEFERRED, *(order + COMPILER for order in COMPILER_FIRST_OR_LAST)
    )
    assert deferred == ["[1.0, 1.0, 1.0, 1.0]", "True", "True", "2.0"]
    assert first.endswith("utils.py")
    assert first == last == whole

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
classifier = Classifier(Settings(model={model!r}, weights={weights!r}))
classifier.start()
classifier.loading.result()
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("model", ["squeezenet1_1", "resnet18", "vgg11", "efficientnet_lite0"])
def test_serving_a_model_does_not_import_the_compiler(tmp_path, model):
    """Importing torchvision or initialising weights would import it."""
    weights = "auto"
    if model != "efficientnet_lite0":
        weights = str(tmp_path / "weights.pth")
        torch.save(torchvision.models.get_model(model).state_dict(), weights)
    found = 'print([m for m in ("torch._dynamo", "sympy") if m in sys.modules])'
    assert run(SERVE.format(model=model, weights=weights) + found).stdout == "[]\n"


def test_deferred_functions_still_work():
    done = run("""
import sys
from predictor.models.lazy_torchvision import torchvision
import torch
assert "torch._dynamo.utils" not in sys.modules
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
print(torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).flatten().tolist())
print(torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu"))
print("torch._dynamo.utils" in sys.modules)
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
""")
    assert done.stdout.split() == ["[1.0,", "1.0,", "1.0,", "1.0]", "True", "True", "2.0"]


def test_compiler_imported_by_others_is_the_real_one():
    for order in (
        "import torch._dynamo.utils; import predictor.models.lazy_torchvision",
        "import predictor.models.lazy_torchvision; import torch._dynamo.utils",
        # as a torchvision that needs the whole compiler would
        "import sys; from predictor.models import lazy_torchvision as lazy;"
        "sys.modules[lazy.COMPILER] = lazy.Deferred(lazy.COMPILER); import torch._dynamo",
    ):
        done = run(f"{order}\nfrom torch._dynamo.utils import counters, __file__ as f\nprint(f)")
        assert done.stdout.endswith("utils.py\n")

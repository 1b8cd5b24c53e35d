"""Real networks in every format, each run by its own runtime, through the command's own function.

VGG16 takes long: `VGG16=yes make exports` runs it, too. The figures are printed with `-s`.
"""

from __future__ import annotations

import os

import pytest
import torch
import torchvision
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from export.wrong import photos
from photographs import prepared, spread
from predictor.errors import ExportError
from predictor.export import FORMATS, running
from predictor.export.options import Options
from predictor.export.subject import load
from predictor.settings import Settings

pytestmark = [pytest.mark.filterwarnings("ignore::Warning"), pytest.mark.timeout(1200)]

IMAGENET = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
RESIZE = {"vgg16": 255, "mobilenet_v3_small": 256}  # of the network's card
LARGE = pytest.mark.skipif("VGG16" not in os.environ, reason="VGG16=yes make exports")
MODELS = ["efficientnet_lite0", "mobilenet_v3_small", pytest.param("vgg16", marks=LARGE)]


@pytest.fixture(scope="module", params=MODELS)
def subject(request, tmp_path_factory):
    """A model with its own weights, or with random ones that answer the photographs differently."""
    settings = Settings(model=request.param)
    if (resize := RESIZE.get(request.param)) is not None:
        torch.manual_seed(0)
        network = torchvision.models.get_model(request.param).eval()
        steps = [Resize(resize), CenterCrop(224), ToTensor(), IMAGENET]
        spread(network, prepared(Compose(steps)))
        path = tmp_path_factory.mktemp("weights") / "net.pth"
        torch.save(network.state_dict(), path)
        settings = Settings(model=request.param, weights=str(path))
    return load(settings)


@pytest.mark.parametrize("format", FORMATS)
def test_real_network_answers_alike_in_every_format(subject, format, tmp_path, request):
    if format == "cpp":
        request.getfixturevalue("built")
    try:
        exported = running.run(format, subject, photos(), tmp_path / "out", Options())
    except ExportError as error:
        pytest.skip(str(error))
    print(subject.name, format, exported)
    assert exported.failure == ""
    assert exported.proof.same == 20
    assert exported.proof.classes >= 10

import io
import json
import zipfile

import numpy as np
import pytest
import torch
import torchvision

from predictor.errors import ModelError
from predictor.models.conversion import convert
from predictor.models.labels import Label
from predictor.models.loading import load_model
from predictor.settings import Settings

pytestmark = [
    pytest.mark.usefixtures("forget_modules"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
CODE = """
from torchvision.models.resnet import BasicBlock, ResNet

class Classifier(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=3)
"""
EAGER = {"modelFile": "served_net.py", "handler": "image_classifier"}
LABELS = json.dumps({"0": "cat", "1": ["n1", "dog"], "2": ["bird"]})


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=3).eval()


@pytest.fixture
def archive(tmp_path, network):
    """Writes an archive as torch-model-archiver does, as a file or a folder; returns its path."""
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    own = {"served_net.py": CODE, "index_to_name.json": LABELS, "net.pt": weights.getvalue()}

    def write(manifest, files=None, as_folder=False):
        manifest = {
            "modelName": "flowers",
            "modelVersion": "1.0",
            "serializedFile": "net.pt",
        } | manifest
        content = json.dumps({"runtime": "python", "model": manifest, "archiverVersion": "0.12.0"})
        with zipfile.ZipFile(tmp_path / "net.mar", "w") as file:
            for name, data in {**own, **(files or {}), "MAR-INF/MANIFEST.json": content}.items():
                file.writestr(name, data)
            if as_folder:
                file.extractall(tmp_path / "net")
        return tmp_path / "net" if as_folder else tmp_path / "net.mar"

    return write


def assert_serves(folder, network):
    model = load_model(Settings(model=str(folder), device="cpu", precision="float32"), 1)
    photo = np.random.default_rng(1).integers(0, 256, (224, 224, 3), np.uint8)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.inference_mode():
        logits = network((torch.from_numpy(photo).permute(2, 0, 1)[None] / 255 - mean) / std)
    difference = np.abs(model.scorer.logits([photo]) - logits.numpy()).max()
    assert difference < 1e-4 * logits.abs().max()
    assert model.labels == (Label("0", "cat"), Label("n1", "dog"), Label("2", "bird"))
    assert model.info.name == "flowers"
    assert (model.card.input.resize, model.card.input.size) == (256, (224, 224))


@pytest.mark.parametrize("as_folder", [False, True])
def test_network_with_a_class_is_served_as_by_image_classifier(
    archive, network, tmp_path, as_folder
):
    remaining = convert(archive(EAGER, as_folder=as_folder), tmp_path / "out")
    assert remaining.rstrip() == "Its handler image_classifier was not run."
    assert_serves(tmp_path / "out", network)


def test_torchscript_is_served_as_by_image_classifier(archive, network, tmp_path):
    script = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, torch.rand(1, 3, 224, 224)), script)
    convert(
        archive({"handler": "image_classifier"}, {"net.pt": script.getvalue()}), tmp_path / "out"
    )
    assert_serves(tmp_path / "out", network)


def test_own_handler_is_named_and_not_run(archive, tmp_path):
    marker = tmp_path / "marker"
    handler = f"import pathlib; pathlib.Path({str(marker)!r}).touch()"
    manifest = EAGER | {"handler": "handler.py:handle"}
    remaining = convert(archive(manifest, {"handler.py": handler}), tmp_path / "out")
    assert remaining.startswith("Its handler handler.py:handle was not run. Enter in ")
    text = (tmp_path / "out" / "model.toml").read_text()
    assert 'source = "served_net.py:Classifier"\nweights = "net.pt"\n' in text
    assert "# [input]\n# size = 224\n# resize = 256\n" in text
    assert not marker.exists()
    assert not (tmp_path / "out" / "handler.py").exists()


@pytest.mark.parametrize(
    ("manifest", "files", "reason"),
    [
        ({"serializedFile": "none.pt"}, {}, "no serializedFile"),
        ({"serializedFile": "../net.pt"}, {}, r"names \.\./net.pt, which is outside"),
        ({"serializedFile": "/etc/passwd"}, {}, "names /etc/passwd, which is outside"),
        ({"handler": "../served_net.py"}, {}, "names ../served_net.py, which is outside"),
        ({}, {"../slipped.py": ""}, "names ../slipped.py, which is outside"),
        ({}, {"/tmp/slipped.py": ""}, "names /tmp/slipped.py, which is outside"),
        ({}, {"a\\..\\..\\slipped.py": ""}, "which is outside"),
        ({}, {"index_to_name.json": '{"0": "cat"}'}, "3 classes"),
        ({}, {"index_to_name.json": '{"1": "cat"}'}, "index 0 is missing"),
        ({}, {"served_net.py": "import none"}, "cannot be imported: No module named 'none'"),
        ({}, {"served_net.py": CODE + CODE.replace("Classifier", "Other")}, "defines 2"),
        ({}, {"served_net.py": CODE.replace("=3", "=4")}, "size mismatch for fc.weight"),
        ({}, {"net.pt": b"no weights"}, "net.pt is truncated, or was not written"),
    ],
)
def test_unusable_archive_is_refused_and_leaves_no_folder(
    archive, tmp_path, manifest, files, reason
):
    with pytest.raises(ModelError, match=f"(?s)net.mar cannot be converted: .*{reason}"):
        convert(archive(EAGER | manifest, files), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["net.mar"]

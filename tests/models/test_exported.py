import logging
import shutil
import zipfile

import pytest
import torch
from torch import Tensor
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from paths import ROOT
from photographs import answers, assert_only_right_is_alike, prepared, spread
from predictor.errors import ModelError
from predictor.models.loading import load_model
from predictor.settings import Settings
from program_files import (
    INPUT,
    NAMES,
    Small,
    Views,
    deprecated,
    load,
    own_answers,
    ready,
    save_exported,
)


class Scales(Small):
    """Takes another way for each image."""

    def forward(self, images: Tensor) -> Tensor:
        def one_way(features: Tensor) -> Tensor:
            return features * 1.0

        def other_way(features: Tensor) -> Tensor:
            return features + 0.0

        features = self.features(images)
        return self.last(torch.cond(features.sum() > 0, one_way, other_way, (features,)))


class Named(Small):
    """Takes its images by name, as the models of Hugging Face do."""

    def forward(self, *, pixel_values: Tensor) -> dict[str, Tensor]:
        features = self.features(pixel_values)
        return {"features": features, "logits": self.last(features)}


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # by torch.cond
@pytest.mark.parametrize("kind", [Small, Views, Scales])
def test_exported_program_answers_as_its_network(tmp_path, kind):
    network = ready(kind)
    model = load(save_exported(tmp_path / "net.pt2", network))
    assert_only_right_is_alike(model, own_answers(network), NAMES)
    assert model.info.parameters == sum(one.numel() for one in network.parameters())


def test_program_that_takes_images_by_name_is_served(tmp_path):
    network, twin = ready(), Named().eval()
    twin.load_state_dict(network.state_dict())
    images = {"pixel_values": torch.rand(2, 3, 64, 64)}
    batch = {"pixel_values": {0: torch.export.Dim("batch")}}
    program = torch.export.export(twin, (), images, dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "net.pt2")
    assert_only_right_is_alike(load(str(tmp_path / "net.pt2")), own_answers(network), NAMES)


def test_program_for_one_image_runs_one_at_once_and_the_log_says_so(tmp_path, caplog):
    path = save_exported(tmp_path / "net.pt2", Small().eval(), count=1, fixed=True)
    with caplog.at_level(logging.INFO):
        model = load(path)
    assert model.scorer.max_batch_size == 1
    assert "net.pt2 takes 1 image(s) at once, because 2 fail" in caplog.text


def test_bfloat16_program_is_served_in_bfloat16(tmp_path):
    network = Small().eval().bfloat16()
    path = save_exported(tmp_path / "net.pt2", network, dtype=torch.bfloat16)
    assert load(path).info.precision == "bfloat16"
    with pytest.raises(ModelError, match="PREDICTOR_PRECISION is float32.* for bfloat16"):
        load(path, precision="float32")


class Two(Small):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return super().forward(images + others)


def two_inputs(path):
    images = torch.rand(2, 3, 64, 64)
    torch.export.save(torch.export.export(Two().eval(), (images, images)), path)


def rewritten(old, new):
    """Save a program, and replace a text in its JSON files."""

    def write(path):
        source = path.with_name("source.pt2")
        save_exported(source, Small().eval())
        with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as copy:
            for info in archive.infolist():
                data = archive.read(info)
                copy.writestr(info, data.replace(old, new) if ".json" in info.filename else data)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: save_exported(path, Small().eval(), fixed=True),
         r"one image of the shape \[1, 3, 64, 64\].* saved with the shape \[2, 3, 64, 64\]"),
        (two_inputs, "cannot be loaded"),
        (rewritten(b'"major": 8', b'"major": 99'), "cannot be loaded by torch 2.*ersion"),
        (rewritten(b'"type": "cpu"', b'"type": "cuda"'), "cannot be loaded.* on this device"),
    ],
    ids=["for two images", "two inputs", "newer torch", "another device"],
)  # fmt: skip
def test_program_that_cannot_be_served_says_why(tmp_path, caplog, write, message):
    path = tmp_path / "net.pt2"
    write(path)
    with pytest.raises(ModelError, match=message):
        load(str(path), device="cpu")
    assert "Traceback" not in caplog.text


def test_image_of_another_size_is_refused_at_the_start(tmp_path):
    path = save_exported(tmp_path / "net.pt2", Small().eval())
    with pytest.raises(ModelError, match=r"\[1, 3, 60, 60\].*64.* Correct \[input\]"):
        load(path, input_size="60")


def test_size_is_that_of_the_example(tmp_path):
    path = save_exported(tmp_path / "net.pt2", Small().eval())
    settings = Settings(model=path, resize="72", mean="0.5,0.5,0.5", std="1,1,1")
    assert load_model(settings, 2).card.input.size == (64, 64)
    with pytest.raises(ModelError, match="resize, mean, std missing"):
        load_model(Settings(model=path), 2)


def test_description_in_the_file_is_used(tmp_path):
    network = ready()
    labels = [f"kind {index}" for index in range(20)]
    path = save_exported(tmp_path / "net.pt2", network, name="mine", labels=labels, input=INPUT)
    model = load_model(Settings(model=path), 2)
    assert model.info.name == "mine"
    assert_only_right_is_alike(model, own_answers(network), labels)


IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOML = """
weights = "net.pt2"
[input]
size = 64
resize = 72
mean = [0.4, 0.5, 0.6]
std = [0.2, 0.3, 0.4]
"""


def test_native_code_needs_trust_by_the_operator(tmp_path):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/archive_format", "pt2")
        archive.writestr("net/data/aotinductor/model/code.so", "")
        archive.writestr("net/extra/predictor.json", '{"trust": true}')
    with pytest.raises(ModelError, match=r"native code.* trust = true"):
        load(str(path))
    (tmp_path / "model.toml").write_text(f"trust = true\n{TOML}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(path))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="native code is made by a compiler")
@pytest.mark.filterwarnings("ignore::Warning")
def test_native_code_answers_as_its_network_and_checks_the_size(tmp_path):
    network = ready()
    images = (torch.rand(2, 3, 64, 64),)
    program = torch.export.export(network, images, dynamic_shapes=({0: torch.export.Dim("n")},))
    path = tmp_path / "net.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    (tmp_path / "model.toml").write_text(f"trust = true\n{TOML}")
    model = load(str(path))
    assert_only_right_is_alike(model, own_answers(network), NAMES)
    assert (model.info.platform, model.info.backend) == ("torch_aoti", "pytorch")
    (tmp_path / "model.toml").write_text("trust = true\n" + TOML.replace("64", "63"))
    with pytest.raises(ModelError, match="expected: 64, but got: 63"):
        load_model(Settings(model=str(path)), 2)


@pytest.mark.parametrize(
    ("heading", "file"), [("TorchScript", "net.pt"), ("torch.export", "net.pt2")]
)
def test_example_of_the_documentation_answers_as_its_network(tmp_path, monkeypatch, heading, file):
    """docs/your-model.md, from the training script's last line to the served model."""
    text = (ROOT / "docs" / "your-model.md").read_text()
    export = text.split(f"## {heading}\n")[1].split("```python\n")[1].split("```")[0]
    toml = text.split("## TorchScript\n")[1].split("```toml\n")[1].split("```")[0]
    network = Small().eval()
    batch = prepared(Compose([Resize(256), CenterCrop(224), ToTensor(), Normalize(*IMAGENET)]))
    spread(network, batch)
    monkeypatch.chdir(tmp_path)
    with deprecated():
        exec(export, {"torch": torch, "net": network})
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    (tmp_path / "model.toml").write_text(toml.replace("net.pt", file))
    model = load_model(Settings(model=file), 2)
    assert_only_right_is_alike(model, answers(network, batch), NAMES)

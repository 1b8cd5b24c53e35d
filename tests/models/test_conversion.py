import importlib
import sys
import textwrap

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from predictor.errors import ModelError
from predictor.models.conversion import convert
from predictor.models.loading import load_model
from predictor.models.sources.torchvision import find_model
from predictor.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
NET = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self{arguments}):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, {classes})

        def forward(self, images):
            return self.fc(self.conv(images).relu().mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, forget_modules):
    """The folder of the training program, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def define(folder, arguments="", classes="3", name="net"):
    """Write a module with a network; return its class."""
    (folder / f"{name}.py").write_text(
        textwrap.dedent(NET.format(arguments=arguments, classes=classes))
    )
    importlib.invalidate_caches()
    return importlib.import_module(name).Net


def served_logits(folder, photo):
    """What a server answers, with the input that the operator has entered."""
    said = {"input_size": "32", "resize": "none", "mean": "0.5,0.5,0.5", "std": "0.25,0.25,0.25"}
    settings = Settings(model=str(folder), device="cpu", precision="float32", **said)
    return load_model(settings, 1).scorer.logits([photo])


def assert_answers_alike(network, folder):
    photo = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    batch = (torch.from_numpy(photo).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25
    with torch.inference_mode():
        logits = network.float().eval()(batch).numpy()
    assert np.abs(served_logits(folder, photo) - logits).max() < 1e-4 * np.abs(logits).max()


def resnet(classes=3):
    return torchvision.models.resnet18(num_classes=classes)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda network: network,
        nn.DataParallel,
        lambda network: {"epoch": 3, "model": network},
        lambda network: network.half(),
        lambda network: torch.optim.swa_utils.AveragedModel(network),
    ],
    ids=["network", "DataParallel", "checkpoint", "half precision", "averaged"],
)
def test_network_of_torchvision_is_found_by_its_parameters(folder, wrap):
    network = resnet()
    torch.save(wrap(network), "model.pth")
    assert convert(folder / "model.pth", folder / "out") == ""
    text = (folder / "out" / "model.toml").read_text()
    assert text == 'source = "torchvision:resnet18"\nweights = "model.safetensors"\n'
    assert_answers_alike(network, folder / "out")


@pytest.mark.parametrize(
    ("arguments", "classes", "line"),
    [("", "3", ""), (", num_classes=10", "num_classes", "arguments = { num_classes = 3 }")],
)
def test_own_class_is_named_with_the_arguments_that_rebuild_it(folder, arguments, classes, line):
    make = define(folder, arguments, classes)
    network = make(num_classes=3) if arguments else make()
    torch.save(network, "model.pth")
    remaining = convert(folder / "model.pth", folder / "out")
    text = (folder / "out" / "model.toml").read_text()
    assert 'source = "../net.py:Net"\n' in text
    assert line in text
    assert remaining == f"Enter in {folder / 'out' / 'model.toml'} how photos were prepared."
    assert "# [input]\n# size = 224\n" in text
    assert_answers_alike(network, folder / "out")


def test_fresh_network_whose_logits_are_all_zero_is_converted(folder):
    network = resnet()
    nn.init.zeros_(network.fc.weight)
    nn.init.zeros_(network.fc.bias)
    torch.save(network, "model.pth")
    assert convert(folder / "model.pth", folder / "out") == ""


def test_class_that_needs_arguments_gets_a_file_to_write(folder):
    make = define(folder, ", width", "width")
    torch.save(make(3), "model.pth")
    message = r"net.Net cannot be built without its arguments. out has .* file net.py.*`build`"
    with pytest.raises(ModelError, match=message):
        convert(folder / "model.pth", folder.relative_to(folder) / "out")
    (folder / "out" / "net.py").write_text(
        f"import sys; sys.path.append({str(folder)!r})\n"
        "from net import Net\ndef build(): return Net(3)\n"
    )
    assert served_logits(folder / "out", np.zeros((32, 32, 3), np.uint8)).shape == (1, 3)


def test_class_in_the_training_program_is_found_with_program(folder, monkeypatch):
    make = define(folder, name="train")
    main = sys.modules["__main__"]
    monkeypatch.setattr(make, "__module__", "__main__")
    monkeypatch.setattr(main, "Net", make, raising=False)
    torch.save(make(), "model.pth")
    monkeypatch.delattr(main, "Net")
    monkeypatch.delitem(sys.modules, "train")
    with pytest.raises(ModelError, match="code that is not found.*--program train.py"):
        convert(folder / "model.pth", folder / "out")
    convert(folder / "model.pth", folder / "out", folder / "train.py")
    assert 'source = "../train.py:Net"' in (folder / "out" / "model.toml").read_text()


@pytest.mark.parametrize("content", [{"a": torch.ones(1)}, [1]])
def test_file_without_a_network_is_refused(folder, content):
    torch.save(content, "model.pth")
    with pytest.raises(ModelError, match="not a pickled model.*PREDICTOR_WEIGHTS"):
        convert(folder / "model.pth", folder / "out")
    assert not (folder / "out").exists()


def test_damaged_file_is_refused(folder):
    (folder / "model.pth").write_bytes(b"PK and so on")
    with pytest.raises(ModelError, match="model.pth cannot be loaded"):
        convert(folder / "model.pth", folder / "out")


def test_network_that_takes_no_photo_is_refused(folder):
    torch.save(nn.Linear(2, 3), "model.pth")
    with pytest.raises(ModelError, match="takes no photo with sides of 224, 32"):
        convert(folder / "model.pth", folder / "out")


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_other_architectures_of_the_same_module_are_not_taken(folder, name):
    network = find_model(name).build(3)
    torch.save(network, "model.pth")
    convert(folder / "model.pth", folder / "out")
    assert f'"torchvision:{name}"' in (folder / "out" / "model.toml").read_text()

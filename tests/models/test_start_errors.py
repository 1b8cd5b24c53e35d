"""What an operator can get wrong: each stops the start with one sentence.

The sentence says where the mistake is (setting, or file and key), what was found and what is
accepted.
"""

from dataclasses import dataclass, field

import pytest
import requests
import torch
from torchvision.models import squeezenet1_1

from predictor.errors import StartError
from predictor.models import loading
from predictor.settings import Settings

RANDOM = {"model": "squeezenet1_1", "weights": "random"}
OWN = {"model": "squeezenet1_1", "weights": "own.pth"}
SOURCE = 'source = "squeezenet1_1"\nweights = "own.pth"\n'


@dataclass
class Case:
    """Settings, the text of model.toml or of other files, and what the sentence has, in order."""

    sentence: str
    settings: dict[str, str] = field(default_factory=lambda: {"model": "model.toml"})
    toml: str | bytes | None = None
    files: dict[str, str | bytes] = field(default_factory=dict)


def toml(text, sentence):
    return Case(sentence, toml=SOURCE + text)


def setting(name, value, sentence):
    return Case(f"PREDICTOR_{name.upper()}.*{sentence}", RANDOM | {name: value})


def model(name, sentence, **files):
    return Case(sentence, {"model": name}, files=files)


def labels(content, sentence, name="own.json"):
    settings = OWN | {"labels": name}
    return Case(f"PREDICTOR_LABELS.*{name}.*{sentence}", settings, files={name: content})


CASES = {
    "a misspelt key": toml('label = "a"', r"model\.toml: .*no key label.*mean labels"),
    "an unknown key": toml("zzzzz = 1", r"model\.toml: .*no key zzzzz.*The keys are name, version"),
    "an unknown key of the input": toml("[input]\nsizes = 1", r"no key input\.sizes.*input\.size"),
    "a key in the wrong table": toml("[output]\nsize = 1", r"no key output\.size"),
    "a table that is a number": toml("input = 3", r"model\.toml: input is 3; .* a table"),
    "a size in words": toml('[input]\nsize = "big"', r"model\.toml: input\.size is 'big'.*1 to"),
    "a size with a fraction": toml("[input]\nsize = 224.5", "input.size is 224.5.*whole numbers"),
    "a size that is true": toml("[input]\nsize = true", "input.size is True.*whole numbers"),
    "a size of three sides": toml("[input]\nsize = [1, 2, 3]", r"is \[1, 2, 3\].*height and width"),
    "a negative size": toml("[input]\nsize = -1", "input.size is -1.*1 to 4096"),
    "a huge size": toml("[input]\nsize = 100000", "input.size is 100000.*1 to 4096"),
    "a size without its resize": toml("[input]\nsize = 64", r"input\.size needs input\.resize"),
    "an unknown resize": toml('[input]\nresize = "crop"', "resize is 'crop'.*squash, pad, none"),
    "an unknown interpolation": toml('[input]\ninterpolation = "cubic"', "'cubic'.*bilinear"),
    "unknown channels": toml('[input]\nchannels = "CMYK"', "'CMYK'.*RGB, BGR, L, RGBA"),
    "an unknown scale": toml('[input]\nscale = "0-1"', r"input\.scale is '0-1'.*0\.\.1, -1\.\.1"),
    "two means": toml("[input]\nmean = [1, 2]", r"model\.toml: input\.mean is \[1, 2\].*1, 3 or 4"),
    "a mean in words": toml('[input]\nmean = "a,b,c"', "input.mean is 'a,b,c'.*1, 3 or 4 numbers"),
    "a mean that is true": toml("[input]\nmean = [true, true, true]", "mean is .True.*numbers"),
    "a mean that is not a number": toml("[input]\nmean = nan", "input.mean is nan.*numbers"),
    "three means for one channel": toml(
        '[input]\nchannels = "L"\nmean = [0.1, 0.2, 0.3]',
        r"model\.toml: input\.mean is \[0\.1, 0\.2, 0\.3\].*each channel of L",
    ),
    "four means for RGB": toml(
        '[input]\nchannels = "RGB"\nmean = [0, 0, 0, 0]', r"input\.mean is .*each channel of RGB"
    ),
    "a std of 0": toml("[input]\nstd = [0, 1, 1]", r"model\.toml: input\.std is .*above 0"),
    "an unknown activation": toml('[output]\nactivation = "tanh"', "'tanh'.*softmax, sigmoid"),
    "a threshold in percent": toml("[output]\nthreshold = 50", "threshold is 50.*from 0 to 1"),
    "a threshold of a softmax": toml("[output]\nthreshold = 0.5", "softmax.*threshold.*sigmoid"),
    "logits as probabilities": Case(
        "resnet18.*outside 0 to 1.*softmax", {"model": "resnet18", "weights": "random",
                                              "activation": "probabilities"}),
    "a part of one array": toml('[output]\nselect = "logits"', "one array.*select = 'logits'"),
    "a part by a list": toml("[output]\nselect = [1]", r"output\.select is \[1\].*key or an index"),
    "batchable in words": toml('batchable = "no"', "batchable is 'no'.*true or false"),
    "trust as a number": toml("trust = 1", "trust is 1.*true or false"),
    "arguments in a list": toml("arguments = [1]", r"arguments is \[1\].*table of keyword"),
    "arguments of torchvision": toml("[arguments]\nwidth = 2", r"model\.toml: arguments.*file\.py"),
    "a name with a blank": toml('name = "a b"', "name is 'a b'.*letters, digits"),
    "an empty list of labels": toml("labels = []", r"labels is \[\].*list of names"),
    "one index for two labels": toml("labels = {a = 0, b = 0}", r"toml: labels.*'a' and 'b'"),
    "labels that are numbers": toml("labels = [1, 2]", r"model\.toml: labels.*index 0 has 1"),
    "too few labels": toml('labels = ["a", "b"]', "own.pth.*3 classes, but .*labels has 2. Set it"),
    "a labels file that is missing": toml('labels = "no.txt"', r"toml: labels.*no\.txt.*No such"),
    "weights that are missing": Case(
        r"model\.toml: weights is 'no\.pth', which does not exist",
        toml='source = "squeezenet1_1"\nweights = "no.pth"'),
    "a source that is unknown": Case("'resnet19'.*resnet18", toml='source = "resnet19"'),
    "an empty source": Case(r"model\.toml: source is ''.*a text", toml='source = ""'),
    "a description of nothing": Case(r"model\.toml must have the key source", toml='name = "a"'),
    "half a text": Case(r"model\.toml cannot be read: .*string", toml='source = "a'),
    "a key twice": Case(r"model\.toml cannot be read", toml='name = "a"\nname = "b"'),
    "Latin letters": Case(r"model\.toml cannot be read: .*utf-8", toml=b'name = "\xe9"'),
    "a setting against model.toml": Case(
        r"PREDICTOR_INPUT_SIZE is \(200, 200\), but model\.toml: input\.size is \(224, 224\)",
        {"model": "model.toml", "input_size": "200"}, SOURCE + "[input]\nsize = 224"),
    "weights against model.toml": Case(
        r"PREDICTOR_WEIGHTS is 'page\.pth', but model\.toml: weights is 'own\.pth'",
        {"model": "model.toml", "weights": "page.pth"}, SOURCE),
    "a model against model.toml": Case(
        r"PREDICTOR_MODEL is torchvision:resnet18, but model\.toml: source is .*squeezenet1_1",
        {"model": "resnet18", "weights": "own.pth"}, SOURCE),
    "a size setting in words": setting("input_size", "big", "'big'.*'160x320'.*1 to 4096"),
    "a size setting alone": setting("input_size", "200", " needs PREDICTOR_RESIZE, too"),
    "a resize setting": setting("resize", "crop", "'crop'.*squash, pad, none"),
    "a mean setting with semicolons": setting("mean", "1;2;3", "'1;2;3'.*1, 3 or 4"),
    "an interpolation setting": setting("interpolation", "best", "'best'.*bilinear"),
    "an activation setting": setting("activation", "relu", "'relu'.*softmax"),
    "a weights setting": setting("weights", "no.pth", r"'no\.pth', which does not exist"),
    "a labels setting": setting("labels", "no.txt", r"no\.txt cannot be read"),
    "a fallback model": setting("fallback_model", "resnet17", "'resnet17'.*resnet18"),
    "a device": setting("device", "gpu", "'gpu'"),
    "labels with a gap": labels('{"0": "a", "2": "b"}', "index 1 is missing"),
    "labels with an index twice": labels('{"0": "a", "0": "b"}', "'0' is there twice"),
    "labels that are not JSON": labels('{"0":', "Expecting value"),
    "labels that are empty": labels("", "empty", "own.txt"),
    "one label for one logit": Case(
        "squeezenet1_1 has 1 output.*needs 2 labels; PREDICTOR_LABELS has 1. Set it",
        RANDOM | {"labels": "one.txt"}, files={"one.txt": "a"}),
    "own labels without own weights": Case(
        "3 labels.*vgg16.*1000 classes.*PREDICTOR_WEIGHTS",
        {"model": "vgg16", "labels": "three.txt"}, files={"three.txt": "a\nb\nc"}),
    "weights of another network": Case(
        r"own\.pth does not hold weights of resnet18: missing", OWN | {"model": "resnet18"}),
    "weights that are a web page": Case(r"page\.pth is a web page", OWN | {"weights": "page.pth"}),
    "weights that are empty": Case(r"empty\.pth is empty", OWN | {"weights": "empty.pth"}),
    "weights of no network": model("own.pth", r"own\.pth holds only weights.*PREDICTOR_MODEL"),
    "published weights offline": model("resnet18", "resnet18.*cannot be downloaded"),
    "unknown published weights": model("resnet50@V9", "'V9' of resnet50.*IMAGENET1K_V2"),
    "no published weights": model("resnet50@", "'resnet50@'.*Accepted"),
    "an unknown model": model("resnet19", "'resnet19'.*resnet18"),
    "an unknown model of a source": model("torchvision:resnet19", "'resnet19'.*resnet18"),
    "a source without a name": model("timm:", "'timm:'.*timm:NAME"),
    "a file without a name": model("net.py:", r"'net\.py:'.*file\.py:name"),
    "a file that is missing": model("net.onnx", r"'net\.onnx'.*Accepted are a path"),
    "a folder that is missing": model("models/own", "'models/own'.*a path"),
    "a path of Windows that is missing": model(r"C:\models\net.pth", r"C:.*a path"),
    "a name with a blank in it": model("a b", "'a b'.*Accepted"),
}  # fmt: skip


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    torch.save(squeezenet1_1(num_classes=3).state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def _a_folder_without_a_network(monkeypatch, tmp_path, own_weights):
    def fails(*_args, **_kwargs):
        raise requests.ConnectionError("Connection refused")

    (tmp_path / "own.pth").symlink_to(own_weights)
    (tmp_path / "page.pth").write_text("<html>")
    (tmp_path / "empty.pth").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(requests, "get", fails)


def write(case, folder):
    for name, content in {"model.toml": case.toml, **case.files}.items():
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {f"PREDICTOR_{name.upper()}": text for name, text in case.settings.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_stops_the_start_with_one_sentence(name, tmp_path):
    environ = write(CASES[name], tmp_path)
    with pytest.raises(StartError, match=f"(?s){CASES[name].sentence}"):
        loading.load_model(Settings.from_env(environ), 1)


@pytest.mark.parametrize("package", ["torch", "torchvision", "efficientnet_lite_pytorch"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, package):
    def fails(_):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(loading, "import_module", fails)
    with pytest.raises(StartError, match=f"{package} is not installed.*pip install"):
        loading.load_model(Settings(**RANDOM), 1)


def test_nothing_stands_in_beside_what_the_operator_says(tmp_path):
    (tmp_path / "thousand.txt").write_text("\n".join(map(str, range(1000))))
    own = {
        "labels": "thousand.txt", "input_size": "64", "mean": "0.5", "activation": "sigmoid",
        "weights": "own.pth",
    }  # fmt: skip
    for name, value in own.items():
        settings = {"model": "resnet18", "fallback_model": "efficientnet_lite0", name: value}
        if name == "input_size":
            settings["resize"] = "64"
        with pytest.raises(StartError, match="resnet18"):
            loading.load_model(Settings(**settings), 1)

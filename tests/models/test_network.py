from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage import data
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from pictures import encode
from predictor import get_prediction, get_predictions
from predictor.images.decoding import decode
from predictor.images.preprocessing import Interpolation, Preprocessing
from predictor.models.loading import load_model
from predictor.models.network import Model
from predictor.models.scorer import warm_up_sizes
from predictor.settings import Settings

CPU = torch.device("cpu")
BILINEAR = Interpolation.BILINEAR


@pytest.fixture(scope="module")
def photos():
    """Photographs in the public domain."""
    return [
        Image.fromarray(data.chelsea()),
        Image.fromarray(data.coffee()),
        Image.fromarray(data.rocket()),
    ]


@pytest.fixture(scope="module")
def lite():
    """The embedded model with its real weights."""
    return load_model(Settings(model="efficientnet_lite0", precision="float32"), 2).scorer


@pytest.mark.slow
def test_vgg16_answers_as_torchvisions_own_pipeline(tmp_path, photos):
    """The network is the real one; its weights are random and come from a file."""
    torch.manual_seed(0)
    oracle = torchvision.models.vgg16().eval()
    torch.save(oracle.state_dict(), tmp_path / "vgg16.pth")
    pipeline = Compose(
        [
            Resize(255),
            CenterCrop(224),
            ToTensor(),
            Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with torch.inference_mode():
        expected = torch.softmax(oracle(torch.stack([pipeline(photo) for photo in photos])), 1)

    settings = Settings(weights=str(tmp_path / "vgg16.pth"), precision="float32")
    loaded = load_model(settings, 2)
    model, info = loaded.scorer, loaded.info
    logits = model.logits([model.preprocessing(photo) for photo in photos])
    probabilities = torch.softmax(torch.from_numpy(logits), 1)

    assert (info.parameters, info.stands_in_for) == (138_357_544, None)
    assert probabilities.argmax(1).tolist() == expected.argmax(1).tolist()
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-6)


def test_embedded_model_recognises_three_photographs(lite, photos):
    logits = lite.logits([lite.preprocessing(photo) for photo in photos])
    assert logits.dtype == np.float32
    assert logits.argmax(1).tolist() == [282, 967, 657]  # tiger_cat, espresso, missile


def test_logits_are_the_same_alone_and_in_a_batch(lite, photos):
    pixels = [lite.preprocessing(photo) for photo in photos]
    alone = np.concatenate([lite.logits([one]) for one in pixels])
    np.testing.assert_allclose(lite.logits(pixels), alone, atol=1e-4)


def test_concurrent_forward_passes_do_not_mix_images(lite, photos):
    pixels = [lite.preprocessing(photo) for photo in photos]
    alone = np.concatenate([lite.logits([one]) for one in pixels])
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda one: lite.logits([one]), pixels * 6))
    np.testing.assert_allclose(np.concatenate(together), np.tile(alone, (6, 1)), atol=1e-4)


def test_get_prediction_returns_the_documented_answer(monkeypatch, photos):
    monkeypatch.setenv("PREDICTOR_MODEL", "efficientnet_lite0")
    class_id, class_name = get_prediction(encode(photos[1]))
    assert (class_id, class_name) == ("n07920052", "espresso")
    assert len(get_predictions(encode(photos[1]), top_k=3)) == 3


@pytest.mark.slow
def test_reduced_jpeg_gets_the_class_of_the_full_one(lite, photos):
    """JPEGs of 12 megapixels, decoded at a quarter of their width and height."""
    for photo in photos:
        scale = (12_000_000 / (photo.width * photo.height)) ** 0.5
        enlarged = photo.resize((int(photo.width * scale), int(photo.height * scale)))
        data = encode(enlarged, "JPEG", quality=90)
        enough = lite.preprocessing.enough_pixels
        decoded = [decode(data, 50_000_000), decode(data, 50_000_000, enough)]
        assert decoded[1].width < decoded[0].width / 3
        logits = lite.logits([lite.preprocessing(image) for image in decoded])
        exact, reduced = torch.softmax(torch.from_numpy(logits), 1)
        assert exact.argmax() == reduced.argmax()
        assert abs(exact.max() - reduced.max()) < 0.03


def test_gpu_is_warmed_up_with_powers_of_two():
    assert warm_up_sizes(False, 1, 32) == {1, 2, 4, 8, 16, 32}
    assert warm_up_sizes(False, 1, 24) == {1, 2, 4, 8, 16, 24}
    assert warm_up_sizes(False, 1, 1) == {1}
    assert warm_up_sizes(True, 2, 8) == {1, 2, 8}


def test_denormalised_tensor_gets_the_logits_of_its_photo(lite, photos):
    """Both are in one batch."""
    preprocess = lite.preprocessing
    pixels = preprocess(photos[0])
    tensor = Normalize(preprocess.mean, preprocess.std)(ToTensor()(pixels.copy()))[None].numpy()
    photo, normalised = lite.logits([pixels, preprocess.pixels(tensor)[0]])
    assert np.abs(photo - normalised).max() < 1e-3
    assert photo.std() > 0.5


class Denormal(torch.nn.Module):
    """Numbers that are too small to count, as activations or weights, made large again."""

    def __init__(self, small, factor):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1,), factor), requires_grad=False)
        self.small = small

    def forward(self, images):
        """``(N, 3, H, W)`` to ``(N, 3HW)``."""
        return (images.abs().clamp(1, 2) * self.small * self.weight * 1e38).flatten(1)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize(
    ("small", "factor"), [(1e-30, 1e-10), (1, 1e-40)], ids=["activations", "weights"]
)
def test_denormal_numbers_count_as_zero_in_all_threads(lite, small, factor, lanes):
    def logits():
        if not torch.set_flush_denormal(True):
            return None
        torch.set_flush_denormal(False)
        network = Denormal(small, factor)
        model = Model(network, lite.preprocessing, threads=2, lanes=2, max_batch_size=2)
        return model.logits([np.full((224, 224, 3), 255, np.uint8)], lanes)

    with ThreadPoolExecutor(1) as new_thread:
        found = new_thread.submit(logits).result()
    if found is None:
        pytest.skip("torch cannot change the mode of this processor")
    assert not found.any()


class Parts(torch.nn.Module):
    """Returns the mean of each channel, and a map, in a tuple."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        """``(N, 3, H, W)`` to ``(N, 3, H, W)`` and ``(N, 3)``."""
        return images, images.mean((2, 3))


@pytest.mark.parametrize("select", [None, 1])
def test_the_logits_are_picked_from_a_tuple(lite, select):
    model = Model(Parts(), lite.preprocessing, threads=1, lanes=1, max_batch_size=2, select=select)
    images = [np.full((224, 224, 3), value, np.uint8) for value in (0, 255)]
    assert np.allclose(model.logits(images), [[-127 / 128] * 3, [1] * 3])


@pytest.mark.parametrize("channels", ["L", "BGR", "RGBA"])
@pytest.mark.parametrize("scale", ["0..1", "-1..1", "0..255"])
def test_network_gets_its_channels_on_its_scale(photos, channels, scale):
    """A network of 1, 3 or 4 channels that takes a rectangle."""
    torch.manual_seed(0)
    count = len(channels)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(count, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.LazyLinear(5),
    ).eval()  # fmt: skip
    mean, std = (0.1, 0.2, 0.3, 0.4)[:count], (0.5, 0.6, 0.7, 0.8)[:count]
    preprocess = Preprocessing((32, 48), "pad", BILINEAR, mean, std, channels, scale)
    pixels = [preprocess(photo) for photo in photos]
    unit = {"0..1": 255, "-1..1": 127.5, "0..255": 1}[scale]
    batch = torch.from_numpy(np.stack(pixels)).float() / unit - int(scale == "-1..1")
    expected = network(((batch - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2))
    model = Model(network, preprocess, threads=1, lanes=1, max_batch_size=4)
    scored = torch.from_numpy(model.logits(pixels))
    torch.testing.assert_close(scored, expected.detach(), rtol=1e-4, atol=1e-4)
    logits, heat = model.explain(
        pixels[0], lambda logits: logits * 0 + (np.arange(len(logits)) == 1), lambda: None
    )
    assert logits == pytest.approx(scored[0].numpy(), rel=1e-3, abs=1e-3)
    assert heat.shape == (7, 11)

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from skimage import data
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from pictures import encode
from predictor import get_prediction
from predictor.engine.classifier import OVERSAMPLING
from predictor.errors import ModelError, WeightsUnavailable
from predictor.images.decoding import decode
from predictor.models import network as model
from predictor.models import zoo
from predictor.models.network import choose_device, choose_dtype, load_model, warm_up_sizes
from predictor.settings import Settings

CPU = torch.device("cpu")


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
    """The embedded model, with its real weights."""
    served, _ = load_model(Settings(model="efficientnet_lite0", precision="float32"), 1000)
    return served


@pytest.mark.slow
def test_vgg16_from_a_file_answers_as_torchvisions_own_pipeline(tmp_path, photos):
    """The design's contract, on the real network; its weights are random, and its answers real."""
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
    served, info = load_model(settings, 1000)
    logits = served.logits([served.preprocessing(photo) for photo in photos])
    probabilities = torch.softmax(torch.from_numpy(logits), 1)

    assert (info.parameters, info.stands_in_for) == (138_357_544, None)
    assert probabilities.argmax(1).tolist() == expected.argmax(1).tolist()
    torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-6)


def test_the_embedded_model_knows_the_photographs(lite, photos):
    logits = lite.logits([lite.preprocessing(photo) for photo in photos])
    assert logits.dtype == np.float32
    assert logits.argmax(1).tolist() == [282, 967, 657]  # tiger_cat, espresso, missile


def test_an_image_scores_the_same_alone_and_in_a_batch(lite, photos):
    pixels = [lite.preprocessing(photo) for photo in photos]
    alone = np.concatenate([lite.logits([one]) for one in pixels])
    np.testing.assert_allclose(lite.logits(pixels), alone, atol=1e-4)


def test_forward_passes_side_by_side_do_not_mix_their_images(lite, photos):
    pixels = [lite.preprocessing(photo) for photo in photos]
    alone = np.concatenate([lite.logits([one]) for one in pixels])
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda one: lite.logits([one]), pixels * 6))
    np.testing.assert_allclose(np.concatenate(together), np.tile(alone, (6, 1)), atol=1e-4)


def test_random_weights_are_announced():
    _, info = load_model(Settings(model="squeezenet1_1", weights="random"), 10)
    assert "meaningless" in info.notice
    assert info.classes == 10


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    find = zoo.find_model
    monkeypatch.setattr(
        model,
        "find_model",
        lambda name: replace(find(name), url="http://127.0.0.1:1/net-01234567.pth"),
    )


@pytest.mark.usefixtures("_offline")
def test_a_stand_in_serves_only_where_one_was_named_and_says_so():
    _, info = load_model(Settings(fallback_model="efficientnet_lite0"), 1000)
    assert (info.name, info.stands_in_for) == ("efficientnet_lite0", "vgg16")
    assert "stands in for vgg16" in info.notice


@pytest.mark.usefixtures("_offline")
def test_without_a_stand_in_the_start_stops():
    with pytest.raises(WeightsUnavailable):
        load_model(Settings(), 1000)


def test_a_stranger_learns_the_files_name_and_not_its_place(lite):
    _, info = load_model(Settings(model="efficientnet_lite0"), 1000)
    assert "/" in info.weights
    assert info.public()["weights"] == "efficientnet-lite0-57934424.pth"


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_stops_the_start(name):
    with pytest.raises(ModelError, match=name):
        choose_device(name)


@pytest.mark.parametrize(
    ("flags", "name", "dtype"),
    [
        ({"avx512_bf16"}, "vgg16", torch.bfloat16),
        ({"amx_bf16"}, "vgg16", torch.bfloat16),
        ({"avx2"}, "vgg16", torch.float32),
        ({"avx512_bf16"}, "efficientnet_lite0", torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it_and_the_model_bears_it(
    monkeypatch, flags, name, dtype
):
    monkeypatch.setattr(model, "_cpu_flags", lambda: flags)
    assert choose_dtype("auto", CPU, zoo.find_model(name)) == dtype


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_precision_that_was_asked_for_is_used(precision):
    settings = Settings(model="squeezenet1_1", weights="random", precision=precision)
    served, info = load_model(settings, 10)
    assert info.precision == precision
    logits = served.logits([np.zeros((224, 224, 3), np.uint8)])
    assert (logits.shape, logits.dtype) == ((1, 10), np.float32)


@pytest.mark.parametrize(("shares", "threads"), [(1, 1), (2, 2), (4, 4)])
def test_a_forward_pass_has_its_share_of_the_threads(shares, threads):
    settings = Settings(
        model="squeezenet1_1", weights="random", torch_threads=4, precision="float32"
    )
    served, info = load_model(settings, 10)
    before = torch.get_num_threads()
    served.logits([np.zeros((224, 224, 3), np.uint8)], shares)
    used = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (served.shares, info.threads, used) == (4, 4, threads)


def test_the_model_takes_as_many_threads_as_the_container_grants(monkeypatch):
    monkeypatch.setattr(model, "available_cpus", lambda: 3)
    before = torch.get_num_threads()
    _, info = load_model(Settings(model="squeezenet1_1", weights="random"), 10)
    torch.set_num_threads(before)
    assert info.threads == 3


@pytest.mark.parametrize(
    ("threads", "chosen", "shares"), [(2, None, 2), (16, None, 4), (16, 8, 8), (1, None, 1)]
)
def test_forward_passes_side_by_side_are_as_many_as_chosen_or_measured_best(
    threads, chosen, shares
):
    settings = Settings(
        model="squeezenet1_1", weights="random", torch_threads=threads, inference_threads=chosen
    )
    before = torch.get_num_threads()
    served, _ = load_model(settings, 10)
    torch.set_num_threads(before)
    assert (served.shares, served.max_batch_size) == (shares, 2)


def test_get_prediction_answers_as_the_contract_says(monkeypatch, photos):
    monkeypatch.setenv("PREDICTOR_MODEL", "efficientnet_lite0")
    buffer = io.BytesIO()
    photos[1].save(buffer, "PNG")
    assert get_prediction(buffer.getvalue()) == {"class_id": "n07920052", "class_name": "espresso"}
    assert len(get_prediction(buffer.getvalue(), top_k=3)["predictions"]) == 3


def test_a_large_jpeg_is_answered_as_from_all_its_pixels(lite, photos):
    """12 megapixels, decoded to a quarter of the sides: the class stays, its probability nearly."""
    for photo in photos:
        scale = (12_000_000 / (photo.width * photo.height)) ** 0.5
        enlarged = photo.resize((int(photo.width * scale), int(photo.height * scale)))
        data = encode(enlarged, "JPEG", quality=90)
        enough = OVERSAMPLING * lite.preprocessing.resize
        decoded = [decode(data, 50_000_000), decode(data, 50_000_000, enough)]
        assert decoded[1].width < decoded[0].width / 3
        scores = lite.logits([lite.preprocessing(image) for image in decoded])
        exact, reduced = torch.softmax(torch.from_numpy(scores), 1)
        assert exact.argmax() == reduced.argmax()
        assert abs(exact.max() - reduced.max()) < 0.03


def test_a_gpu_is_warmed_up_with_the_sizes_that_choose_its_kernels():
    cuda = torch.device("cuda")
    assert warm_up_sizes(cuda, 1, 32) == {1, 2, 4, 8, 16, 32}
    assert warm_up_sizes(cuda, 1, 24) == {1, 2, 4, 8, 16, 24}
    assert warm_up_sizes(cuda, 1, 1) == {1}
    assert warm_up_sizes(CPU, 2, 8) == {1, 2, 8}


def test_what_a_caller_has_normalised_scores_as_the_photo_does(lite, photos):
    """A tensor and a photo share a batch; bicubic pixels are whole, so the answers are equal."""
    preprocess = lite.preprocessing
    pixels = preprocess(photos[0])
    tensor = Normalize(preprocess.mean, preprocess.std)(ToTensor()(pixels.copy()))[None].numpy()
    photo, normalised = lite.logits([pixels, preprocess.pixels(tensor)[0]])
    assert np.abs(photo - normalised).max() < 1e-3
    assert photo.std() > 0.5

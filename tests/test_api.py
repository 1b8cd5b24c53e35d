"""The functions for Python."""

import copy
import io
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import numpy as np
import pytest
from flask import Flask, jsonify, request
from PIL import Image
from skimage import data

from pictures import encode, picture
from predictor import api, get_prediction, get_predictions
from predictor.api import SharedClassifier
from predictor.engine.call import Call
from predictor.engine.classifier import Classifier
from predictor.engine.cpus import available_cpus
from predictor.errors import (
    BadRequest,
    DamagedImage,
    InferenceFailed,
    PredictorError,
    SettingsError,
    UnsupportedImage,
    WeightsError,
)
from predictor.settings import Settings
from toy import toy_model

RED = ("n00000000", "red_thing")


def loaded_by(load):
    """Build classifiers with ``load``, which takes no arguments."""
    return lambda: Classifier(Settings(), lambda *_: load())


@pytest.fixture
def use(monkeypatch):
    """Forget the loaded classifier; let the functions use one of ``make``, if given."""
    return lambda *make: monkeypatch.setattr(api, "shared", SharedClassifier(*make))


@pytest.fixture
def toy(use, classifier):
    use(lambda: classifier)


def test_get_prediction_works_in_the_usual_flask_view(toy):
    app = Flask(__name__)

    @app.route("/predict", methods=["POST"])
    def predict():
        img_bytes = request.files["file"].read()
        class_id, class_name = get_prediction(image_bytes=img_bytes)
        return jsonify({"class_id": class_id, "class_name": class_name})

    sent = {"file": (io.BytesIO(picture("red")), "cat.jpg")}
    response = app.test_client().post("/predict", data=sent)
    assert response.get_json() == {"class_id": "n00000000", "class_name": "red_thing"}


@pytest.mark.slow
def test_get_prediction_loads_the_model_of_the_environment(use, monkeypatch):
    use()
    monkeypatch.setenv("PREDICTOR_MODEL", "efficientnet_lite0")
    cup = encode(Image.fromarray(data.coffee()))
    assert get_prediction(cup) == ("n07920052", "espresso")
    api.shared.get().close()


def test_the_pair_has_attributes(toy):
    best = get_prediction(picture("green"))
    assert best == ("n00000001", "green_thing")
    assert (best.class_id, best.class_name, best.class_index) == (*best, 1)
    assert 0.99 < best.probability <= 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_pair_can_be_pickled(toy, protocol):
    best = get_prediction(picture())
    again = pickle.loads(pickle.dumps(best, protocol))
    assert (again, vars(again), type(again)) == (best, vars(best), type(best))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_the_pair_can_be_copied(toy, copied):
    best = get_prediction(picture())
    assert (copied(best), vars(copied(best))) == (best, vars(best))


def test_get_predictions_ranks_the_classes(toy):
    ranked = get_predictions(picture("blue"), top_k=2)
    assert [p.class_name for p in ranked] == ["blue_thing", "red_thing"]
    assert ranked[0].probability > ranked[1].probability


def test_get_predictions_returns_all_classes_if_there_are_few(toy):
    assert len(get_predictions(picture())) == 3


@pytest.mark.parametrize("top_k", [0, -1])
def test_get_predictions_refuses_a_top_k_below_one(toy, top_k):
    with pytest.raises(BadRequest, match="at least 1"):
        get_predictions(picture(), top_k)


@pytest.mark.parametrize("top_k", ["3", 2.0, None])
def test_get_predictions_refuses_a_top_k_of_another_type(toy, top_k):
    with pytest.raises(TypeError, match=f"^top_k is {top_k!r}; it must be a whole number.$"):
        get_predictions(picture(), top_k)
    assert len(get_predictions(picture(), np.int64(2))) == 2


@pytest.mark.parametrize(
    "wrap", [bytes, bytearray, memoryview, io.BytesIO], ids=lambda w: w.__name__
)
def test_an_image_may_be_bytes_or_a_binary_stream(toy, wrap):
    assert get_prediction(wrap(picture())) == RED


@pytest.mark.parametrize("convert", [str, lambda path: path, lambda path: path.open("rb")])
def test_an_image_may_be_a_path_or_an_open_file(toy, tmp_path, convert):
    (tmp_path / "red.png").write_bytes(picture())
    source = convert(tmp_path / "red.png")
    assert get_prediction(source) == RED
    getattr(source, "close", lambda: None)()


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (None, "an object of type NoneType"),
        (5, "an object of type int"),
        ([picture()], "an object of type list"),
        (Image.new("RGB", (9, 9)), "an object of type Image"),
        (io.StringIO("text"), "a file opened in text mode"),
    ],
)
def test_any_other_type_is_an_error_that_says_what_is_accepted(toy, source, named):
    expected = f"image_bytes is {named}. It must be the bytes .* a path, or a file .* binary mode"
    with pytest.raises(TypeError, match=expected):
        get_prediction(source)


def test_a_text_file_is_an_error(toy, tmp_path):
    (tmp_path / "red.txt").write_text("text")
    with (tmp_path / "red.txt").open() as file, pytest.raises(TypeError, match="text mode"):
        get_prediction(file)


def test_a_missing_file_is_an_os_error(toy, tmp_path):
    with pytest.raises(FileNotFoundError):
        get_prediction(tmp_path / "missing.png")


@pytest.mark.parametrize(
    ("image", "error"), [(b"text", UnsupportedImage), (picture()[:60], DamagedImage)]
)
def test_an_image_that_cannot_be_decoded_is_an_error(toy, image, error):
    with pytest.raises(error):
        get_prediction(image)


def test_an_invalid_setting_is_an_error(use, monkeypatch):
    use()
    monkeypatch.setenv("PREDICTOR_MAX_QUEUE", "many")
    with pytest.raises(SettingsError):
        get_prediction(picture())


def test_concurrent_first_calls_share_one_classifier(use, classifier):
    made = []
    use(lambda: made.append(1) or classifier)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(get_prediction, [picture()] * 8)) == [RED] * 8
    assert made == [1]


def fail():
    raise WeightsError("There are no weights.")


def test_a_failed_load_is_tried_again_by_the_next_call(use):
    loads = [fail, toy_model]
    use(loaded_by(lambda: loads.pop(0)()))
    with pytest.raises(WeightsError, match="no weights"):
        get_prediction(picture())
    assert get_prediction(picture()) == RED
    api.shared.get().close()


def test_all_concurrent_calls_get_the_error_of_a_failed_load(use):
    entered, let = threading.Semaphore(0), threading.Event()

    def load():
        assert let.wait(10)
        fail()

    def call():
        entered.release()
        return get_prediction(picture())

    use(loaded_by(load))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        for _ in calls:
            assert entered.acquire(timeout=10)
        let.set()
        assert {type(call.exception(timeout=10)) for call in calls} == {WeightsError}


# In forked processes. Python 3.12 warns of forks in a process with threads.
forking = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def outcome():
    """What get_prediction returns or raises, and its seconds."""
    began = monotonic()
    try:
        return get_prediction(picture()), monotonic() - began
    except PredictorError as error:
        return str(error), monotonic() - began


def outcome_in_fork():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(outcome).result(timeout=60)


@forking
def test_a_process_forked_after_the_load_gets_an_error_at_once(toy):
    get_prediction(picture())
    error, seconds = outcome_in_fork()
    assert "forked after its parent had begun to load" in error
    assert '"spawn"' in error
    assert seconds < 1
    assert get_prediction(picture()) == RED


@forking
def test_a_process_forked_during_the_load_gets_an_error_at_once(use):
    entered, let = threading.Event(), threading.Event()
    use(loaded_by(lambda: entered.set() or (let.wait(60) and toy_model())))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(get_prediction, picture())
        assert entered.wait(10)
        error, seconds = outcome_in_fork()
        let.set()
        assert call.result(timeout=10) == RED
    assert "forked after its parent had begun to load" in error
    assert seconds < 1
    api.shared.get().close()


@forking
def test_a_classifier_in_a_forked_process_fails_at_once(make_classifier):
    """Even if its parent was decoding: nothing in the child will ever free the decoders."""
    classifier = make_classifier(request_timeout_s=3600)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def classify():
        with pytest.raises(InferenceFailed) as failed:
            classifier.classify([picture()])
        answers.put(str(failed.value))

    child = context.Process(target=classify)
    decoders = classifier.process.decoders
    with ExitStack() as taken:
        for _ in range(available_cpus()):
            taken.enter_context(decoders.turns.take(Call()))
        child.start()
    child.join(timeout=10)
    child.kill()
    assert answers.get() == "The model has stopped; this process cannot answer any more."


@forking
def test_a_process_forked_before_the_load_loads_its_own(use):
    use(loaded_by(toy_model))
    assert outcome_in_fork()[0] == RED
    assert get_prediction(picture()) == RED
    api.shared.get().close()

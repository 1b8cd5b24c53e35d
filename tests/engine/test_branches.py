"""A network with an ``if`` on its input: which branch it takes depends on the whole batch."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from own_networks import BrightBranch, serve
from pictures import encode
from predictor.engine.classifier import Classifier
from predictor.errors import ModelError
from predictor.settings import Settings

BRIGHT, DARK = (encode(Image.new("RGB", (9, 9), colour)) for colour in ["#ffdd99", "#300000"])


@pytest.fixture
def alone():
    loaded = serve(BrightBranch(), batchable=False)
    # The batcher waits for a batch to fill.
    classifier = Classifier(Settings(max_batch_delay_ms=100), load=lambda *_: loaded)
    classifier.start()
    classifier.loading.result(60)
    yield classifier
    classifier.close()


def test_a_network_with_branches_stops_the_start():
    with pytest.raises(ModelError, match="batchable = false"):
        serve(BrightBranch())


def test_photos_of_two_branches_at_once_get_what_each_gets_alone(alone):
    photos = [BRIGHT, DARK]
    expected = [alone.logits([photo])[0].tolist() for photo in photos]
    assert expected[0][2] > expected[0][0] > 0 > expected[1][2]
    assert expected[1][0] > expected[1][2]
    assert [logits.tolist() for logits in alone.logits(photos * 8)] == expected * 8
    with ThreadPoolExecutor(8) as clients:
        answers = clients.map(lambda photo: alone.logits([photo])[0].tolist(), photos * 16)
        assert list(answers) == expected * 16


def test_the_limit_of_one_photo_is_public(alone):
    assert alone.require_model().public()["max_batch_size"] == 1


def test_photos_of_a_network_that_is_not_batchable_are_scored_one_at_a_time(alone):
    assert alone.require_model().scorer.lanes == 1

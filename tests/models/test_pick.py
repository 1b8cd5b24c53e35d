from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from predictor.errors import ModelError
from predictor.models.outputs import pick

LOGITS = np.ones((2, 10), np.float32)
MAPS = np.ones((2, 512, 7, 7), np.float32)
AUXILIARY = np.zeros((2, 10), np.float32)
Inception = namedtuple("InceptionOutputs", ["logits", "aux_logits"])
GoogLeNet = namedtuple("GoogLeNetOutputs", ["logits", "aux_logits2", "aux_logits1"])
Other = namedtuple("Other", ["features", "scores"])


@dataclass
class ImageClassifierOutput:
    logits: np.ndarray
    hidden_states: tuple = ()


@pytest.mark.parametrize(
    ("returned", "select"),
    [
        (LOGITS, None),
        (LOGITS[:, :, None, None], None),
        (LOGITS[:, 0], None),  # one logit whose axis was squeezed
        ({"logits": LOGITS, "loss": AUXILIARY}, None),
        (OrderedDict(anything=LOGITS), None),
        ({"features": MAPS, "out": LOGITS}, None),
        ({"out": LOGITS, "other": AUXILIARY}, "out"),
        ({"other": AUXILIARY, "out": LOGITS}, 1),
        ((LOGITS,), None),
        ([MAPS, LOGITS, None], None),
        ((AUXILIARY, LOGITS), 1),
        (Inception(LOGITS, AUXILIARY), None),
        (Inception(LOGITS, None), None),
        (GoogLeNet(LOGITS, AUXILIARY, AUXILIARY), None),
        (Other(AUXILIARY, LOGITS), "scores"),
        (Other(AUXILIARY, LOGITS), 1),
        (ImageClassifierOutput(LOGITS), None),
    ],
)
def test_the_logits_are_found(returned, select):
    picked = pick(returned, select)
    assert picked.size in (LOGITS.size, len(LOGITS))
    assert picked.all()


@pytest.mark.parametrize(
    ("returned", "select", "found"),
    [
        ((LOGITS, AUXILIARY), None, r"0 \(2, 10\), 1 \(2, 10\)"),
        ({"a": LOGITS, "b": LOGITS}, "c", r"a \(2, 10\), b"),
        ((LOGITS, AUXILIARY), 2, r"1 \(2, 10\)"),
        (LOGITS, "logits", "one array: remove"),
        (MAPS, None, r"\(2, 512, 7, 7\)"),
        ({"out": MAPS}, "out", r"out \(2, 512, 7, 7\)"),
        (None, None, "NoneType"),
        ("text", None, "str"),
    ],
)
def test_unclear_logits_are_an_error_with_the_key_to_set(returned, select, found):
    with pytest.raises(ModelError, match=f"{found}.*select"):
        pick(returned, select)

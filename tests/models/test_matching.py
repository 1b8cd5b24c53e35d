import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from predictor.errors import WeightsError
from predictor.models.checkpoints import Checkpoint
from predictor.models.matching import match


@pytest.fixture
def network():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return nn.ModuleDict({"layer1": block, "fc": nn.Linear(4, 5)})


@pytest.fixture
def state(network):
    return network.state_dict()


@pytest.fixture
def find(state, tmp_path):
    return lambda tensors, key=None: match(Checkpoint(tmp_path / "net.pth", tensors, key), state)


def under(prefix, state, add=0):
    return {f"{prefix}{name}": tensor + add for name, tensor in state.items()}


def is_equal(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "_orig_mod.", "module._orig_mod.module.", "model.", "module.net.",
     "net.module.", "state_dict.model.backbone.", "anything.0.", "layer1.", "fc."],
)  # fmt: skip
def test_any_prefix_is_found(find, state, prefix):
    found = find(under(prefix, state))
    assert is_equal(found.state, state)
    assert (found.unexpected, found.ignored, found.others) == ([], [], [])


@pytest.mark.parametrize("word", ["_orig_mod", "module", "_fsdp_wrapped_module"])
def test_wrapper_inside_the_network_is_found(find, state, word):
    tensors = {name.replace("layer1.", f"layer1.{word}."): t for name, t in state.items()}
    found = find(tensors)
    assert is_equal(found.state, state)
    assert found.renamed[0] == (f"layer1.{word}.0.weight", "layer1.0.weight")


def test_network_with_a_part_called_module_is_found(tmp_path):
    state = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 3)}).state_dict()
    for prefix in ("", "module."):
        found = match(Checkpoint(tmp_path, under(prefix, state)), state)
        assert is_equal(found.state, state)


@pytest.mark.parametrize(
    "name",
    ["total_ops", "layer1.0.total_params", "n_averaged", "criterion.weight", "loss_fn.weight",
     "train_acc.tp", "optimizer.state.0.exp_avg", "ema.decay", "aux1.fc1.weight"],
)  # fmt: skip
def test_state_of_training_is_ignored(find, state, name):
    found = find(state | {name: torch.zeros(1)})
    assert is_equal(found.state, state)
    assert (found.unexpected, found.ignored) == ([], [name])


@pytest.mark.parametrize("name", ["layer1.2.weight", "fc2.weight", "fc.1.weight", "schema.weight"])
def test_further_layer_is_unexpected(find, state, name):
    assert find(state | {name: torch.zeros(1)}).unexpected == [name]


def test_tensors_outside_the_prefix_are_ignored(find, state):
    beside = {"head.weight": torch.zeros(1), "epoch": torch.ones(1)}
    found = find(under("model.", state) | beside)
    assert (found.unexpected, found.ignored) == ([], list(beside))


@pytest.mark.parametrize(
    ("trained", "copy"),
    [("model.", "ema."), ("", "ema.module."), ("state_dict.", "state_dict_ema."),
     ("student.", "teacher."), ("net.", "swa_model.module."), ("encoder_q.", "target.encoder.")],
)  # fmt: skip
@pytest.mark.parametrize("copy_is_first", [True, False])
def test_trained_network_is_preferred_to_its_copy(find, state, trained, copy, copy_is_first):
    both = [under(trained, state), under(copy, state, add=1)]
    first, second = reversed(both) if copy_is_first else both
    found = find(first | second)
    assert is_equal(found.state, state)
    assert (found.unexpected, found.ignored, len(found.others)) == ([], [], 1)
    assert is_equal(find(first | second, key=copy[:-1]).state, under("", state, add=1))


def test_key_without_weights_is_an_error_that_names_the_places(find, state):
    tensors = under("a.model.", state) | {"b.step": torch.ones(1)}
    for key in ("a.net", "b"):
        with pytest.raises(WeightsError, match=f"'{key}'.*'a.model'"):
            find(tensors, key)


def test_averaged_model_is_found(find, network, state):
    found = find(AveragedModel(network).state_dict())
    assert is_equal(found.state, state)
    assert found.ignored == ["n_averaged"]


def test_shapes_decide_between_layers_with_the_same_names(tmp_path):
    state = nn.Linear(4, 5).state_dict()
    tensors = under("a.", nn.Linear(4, 3).state_dict()) | under("b.c.", state)
    assert is_equal(match(Checkpoint(tmp_path, tensors), state).state, state)


def test_masks_of_pruning_are_applied(find, network, state):
    prune.l1_unstructured(network["fc"], "weight", amount=0.5)
    found = find(under("model.", network.state_dict()))
    assert torch.equal(found.state["fc.weight"], network["fc"].weight)
    assert (found.state["fc.weight"] == 0).sum() == 10
    assert found.unexpected == []


def test_network_that_is_built_with_masks_keeps_them(network, tmp_path):
    prune.l1_unstructured(network["fc"], "weight", amount=0.5)
    state = network.state_dict()
    assert is_equal(match(Checkpoint(tmp_path, dict(state)), state).state, state)


def test_counters_of_batch_norm_may_be_missing(find, state):
    tensors = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    assert is_equal(find(under("model.", tensors)).state, tensors)


def test_a_few_equal_names_are_not_this_network(find):
    found = find({"x.fc.weight": torch.zeros(5, 4), "y": torch.zeros(1)})
    assert not found.state
    assert found.unexpected == ["x.fc.weight", "y"]

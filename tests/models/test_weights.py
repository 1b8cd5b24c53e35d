import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
import torch
import torchvision
from safetensors.torch import save_file

from predictor.errors import WeightsError, WeightsUnavailable
from predictor.models import checkpoints, weights
from predictor.models.building import build_empty
from predictor.models.checkpoints import Checkpoint
from predictor.models.download import download
from predictor.models.sources.torchvision import find_model

CONTENT = b"the bytes of a network" * 100_000


@pytest.fixture(scope="module")
def spec():
    return find_model("squeezenet1_1")


@pytest.fixture(scope="module")
def state(spec):
    return spec.build(10).state_dict()


@pytest.fixture
def publish():
    """Serves bytes on loopback; returns the URL, which contains their hash."""
    servers = []

    def serve(content=CONTENT, status=200, length=None):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                serve.served += 1
                self.send_response(status)
                self.send_header("Content-Length", str(length or len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_): ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        digest = hashlib.sha256(CONTENT).hexdigest()[:8]
        return f"http://127.0.0.1:{server.server_port}/net-{digest}.pth"

    serve.served = 0
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_download_is_complete_and_shows_its_progress(publish, tmp_path, capfd):
    path = tmp_path / "checkpoints" / "net.pth"
    download(publish(), path)
    assert path.read_bytes() == CONTENT
    assert "Downloading net-" in capfd.readouterr().err
    assert path.stat().st_mode == (tmp_path / "checkpoints" / "net.pth.lock").stat().st_mode


def test_partial_file_of_a_killed_download_is_overwritten(publish, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(b"half")
    download(publish(), tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_concurrent_calls_download_a_file_once(publish, tmp_path):
    url = publish()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: download(url, tmp_path / "net.pth"), range(4)))
    assert publish.served == 1


def test_download_with_a_wrong_hash_is_deleted(publish, tmp_path):
    with pytest.raises(WeightsError, match="SHA-256"):
        download(publish(b"<html>Please log in</html>"), tmp_path / "net.pth")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_interrupted_download_leaves_no_file(publish, tmp_path):
    with pytest.raises(requests.RequestException):
        download(publish(CONTENT[:1000], length=len(CONTENT)), tmp_path / "net.pth")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_http_error_leaves_no_file(publish, tmp_path):
    with pytest.raises(requests.HTTPError):
        download(publish(status=404), tmp_path / "net.pth")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_published_weights_are_kept_in_torchs_cache(publish, spec, cache):
    spec = replace(spec, url=publish())
    path = weights.locate(spec, "auto")
    assert path.parent == cache
    offline = replace(spec, url=f"http://127.0.0.1:1/{path.name}")
    assert weights.locate(offline, "auto") == path


def test_failed_download_is_an_error_that_says_what_to_do(spec, cache):
    offline = replace(spec, url="http://127.0.0.1:1/net-01234567.pth")
    with pytest.raises(WeightsUnavailable) as caught:
        weights.locate(offline, "auto")
    message = str(caught.value)
    assert "Connection refused" in message
    assert str(cache / "net-01234567.pth") in message
    assert "PREDICTOR_WEIGHTS" in message
    assert "PREDICTOR_MODEL=efficientnet_lite0" in message


def plain(network):
    return network.state_dict()


def in_old_names(network):
    """With the names in the published ViT files."""
    old = (".mlp.0.", ".mlp.linear_1."), (".mlp.3.", ".mlp.linear_2.")
    state = network.state_dict()
    for today, then in old:
        state = OrderedDict((name.replace(today, then), t) for name, t in state.items())
    return state


def without_counters(network):
    """As in files from before batch norm had a counter."""
    return {n: t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize(
    ("name", "as_saved"),
    [
        ("mnasnet0_5", plain),
        ("mnasnet0_5", without_counters),
        ("resnet18", without_counters),
        ("vit_b_16", in_old_names),
        ("googlenet", plain),
        ("inception_v3", plain),
    ],
)
@pytest.mark.parametrize("save", [torch.save, save_file])
def test_old_files_give_the_same_logits(tmp_path, name, as_saved, save):
    torch.manual_seed(0)
    oracle = torchvision.models.get_model(name, num_classes=7).eval()
    if name in ("googlenet", "inception_v3"):
        oracle.transform_input = True  # torchvision sets it for published weights
    save(as_saved(oracle), tmp_path / "net.pth")
    network = build_empty(find_model(name).build, 7)
    weights.fill(network, checkpoints.read(tmp_path / "net.pth"), name)
    batch = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch), oracle(batch))


@pytest.fixture
def checkpoint(tmp_path):
    return lambda state: Checkpoint(tmp_path / "net.pth", dict(state))


def test_tensors_are_put_into_the_network_without_copies(spec, state, checkpoint):
    network = build_empty(spec.build, 10)
    weights.fill(network, checkpoint(state), spec.name)
    assert all(network.state_dict()[name].data_ptr() == t.data_ptr() for name, t in state.items())
    assert not any(p.requires_grad for p in network.parameters())


def test_log_says_what_was_renamed_ignored_and_not_chosen(spec, state, checkpoint, caplog):
    caplog.set_level("INFO")
    file = {f"module.{n}": t for n, t in state.items()} | {f"ema.{n}": t for n, t in state.items()}
    file |= {"criterion.weight": torch.ones(1), "module.total_ops": torch.ones(1)}
    found = replace(checkpoint(file), objects=("argparse.Namespace",))
    weights.fill(build_empty(spec.build, 10), found, spec.name)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"net.pth: {len(state)} names were changed, such as module.features.0.weight →"
        " features.0.weight; criterion.weight and 1 more were ignored; the objects"
        " argparse.Namespace were not loaded; other weights that fit are 'ema' (weights_key in"
        " model.toml chooses)."
    )


def test_plain_state_dict_is_not_worth_a_line_in_the_log(spec, state, checkpoint, caplog):
    caplog.set_level("INFO")
    weights.fill(build_empty(spec.build, 10), checkpoint(state), spec.name)
    assert not caplog.records


def test_key_chooses_among_the_weights_of_a_file(spec, state, checkpoint):
    file = checkpoint(state | {f"ema.module.{n}": t + 1 for n, t in state.items()})
    network = build_empty(spec.build, 10)
    weights.fill(network, replace(file, key="ema"), spec.name)
    bias = "classifier.1.bias"
    assert torch.equal(network.state_dict()[bias], state[bias] + 1)
    with pytest.raises(WeightsError, match="weights_key='teacher'.* at the top, 'ema'"):
        weights.fill(network, replace(file, key="teacher"), spec.name)


def test_error_for_another_network_names_the_first_parameters(state, checkpoint):
    message = "of resnet18: missing conv1.weight and 101 more, unexpected features.0.weight and 51"
    with pytest.raises(WeightsError, match=message):
        weights.fill(build_empty(find_model("resnet18").build, 10), checkpoint(state), "resnet18")


def test_deeper_network_with_the_same_names_is_refused(checkpoint):
    deep = build_empty(find_model("resnet34").build, 10).state_dict()
    with pytest.raises(WeightsError, match=r"of resnet18: unexpected layer1.2.conv1.weight and 95"):
        weights.fill(build_empty(find_model("resnet18").build, 10), checkpoint(deep), "resnet18")


@pytest.mark.parametrize(
    ("head", "difference"),
    [
        ("net.fc.1.", "missing fc.weight and 1 more, unexpected net.fc.1.weight and 1 more"),
        ("classifier.", "missing fc.weight and 1 more"),
    ],
)
def test_changed_head_gets_a_hint_to_build_it(checkpoint, head, difference):
    network = build_empty(find_model("resnet18").build, 10)
    file = {f"net.{name}": tensor for name, tensor in network.state_dict().items()}
    file = {name.replace("net.fc.", head): tensor for name, tensor in file.items()}
    with pytest.raises(WeightsError, match=f"{difference}. .*net.py:build"):
        weights.fill(network, checkpoint(file), "resnet18")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (1000, "PREDICTOR_LABELS has 1000. Set it to the labels of these 10 classes."),
        (10, r"the network has 1000 outputs. Correct \[arguments\]"),
    ],
)
def test_wrong_number_of_classes_names_layer_numbers_and_cause(
    spec, state, checkpoint, labels, message
):
    network, said = build_empty(spec.build, 1000), "PREDICTOR_LABELS"
    with pytest.raises(WeightsError, match=f"classifier.1.weight has 10 classes, but {message}"):
        weights.fill(network, checkpoint(state), spec.name, labels, said)


def test_layer_of_another_shape_is_named(spec, state, checkpoint):
    other = checkpoint(state | {"features.0.weight": torch.zeros(64, 1, 3, 3)})
    with pytest.raises(WeightsError, match=r"features.0.weight has the shape \(64, 1, 3, 3\)"):
        weights.fill(build_empty(spec.build, 10), other, spec.name)


def test_whole_model_beside_other_tensors_is_named(spec, checkpoint):
    file = replace(checkpoint({"optimizer.step": torch.ones(1)}), model="net.Net")
    with pytest.raises(WeightsError, match=r"whole model \(net.Net\).*predictor convert"):
        weights.fill(build_empty(spec.build, 10), file, spec.name)


@pytest.mark.parametrize(("built", "classes"), [(1000, 10), (10, None)])
def test_number_of_classes_is_where_shapes_differ(spec, state, checkpoint, built, classes):
    expected = build_empty(spec.build, built).state_dict()
    file = checkpoint({f"model.{name}": tensor for name, tensor in state.items()})
    assert weights.classes_of(file, expected) == classes


def test_number_of_classes_is_unclear_if_another_layer_differs(spec, state, checkpoint):
    other = checkpoint(state | {"features.0.weight": torch.zeros(64, 1, 3, 3)})
    assert weights.classes_of(other, build_empty(spec.build, 1000).state_dict()) is None

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
from torch import nn

from predictor.errors import WeightsError, WeightsUnavailable
from predictor.models import weights
from predictor.models.zoo import build_empty, find_model

CONTENT = b"the bytes of a network" * 100_000


@pytest.fixture(scope="module")
def spec():
    return find_model("squeezenet1_1")


@pytest.fixture(scope="module")
def state(spec):
    return spec.build(10).state_dict()


@pytest.fixture
def publish():
    """Serve bytes on loopback; returns the address that carries their hash."""
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


def test_a_download_arrives_whole_and_shows_its_progress(publish, tmp_path, capfd):
    path = tmp_path / "checkpoints" / "net.pth"
    weights.download(publish(), path)
    assert path.read_bytes() == CONTENT
    assert "Downloading net-" in capfd.readouterr().err
    assert path.stat().st_mode == (tmp_path / "checkpoints" / "net.pth.lock").stat().st_mode


def test_what_a_killed_download_left_is_no_hindrance(publish, tmp_path):
    (tmp_path / "net.pth.part").write_bytes(b"half")
    weights.download(publish(), tmp_path / "net.pth")
    assert (tmp_path / "net.pth").read_bytes() == CONTENT


def test_of_several_that_want_the_same_file_one_downloads(publish, tmp_path):
    url = publish()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: weights.download(url, tmp_path / "net.pth"), range(4)))
    assert publish.served == 1


def test_other_bytes_than_were_published_are_thrown_away(publish, tmp_path):
    with pytest.raises(WeightsError, match="other bytes than were published"):
        weights.download(publish(b"<html>Please log in</html>"), tmp_path / "net.pth")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_connection_that_is_cut_leaves_nothing_behind(publish, tmp_path):
    with pytest.raises(requests.RequestException):
        weights.download(publish(CONTENT[:1000], length=len(CONTENT)), tmp_path / "net.pth")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_file_that_is_gone_from_the_server_leaves_nothing_behind(publish, tmp_path):
    with pytest.raises(requests.HTTPError):
        weights.download(publish(status=404), tmp_path / "net.pth")
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def test_published_weights_are_downloaded_once_into_torchs_cache(publish, spec, cache):
    spec = replace(spec, url=publish())
    path = weights.locate(spec, "auto")
    assert path.parent == cache
    offline = replace(spec, url=f"http://127.0.0.1:1/{path.name}")
    assert weights.locate(offline, "auto") == path


def test_without_a_route_the_sentence_names_the_remedies(spec, cache):
    offline = replace(spec, url="http://127.0.0.1:1/net-01234567.pth")
    with pytest.raises(WeightsUnavailable) as caught:
        weights.locate(offline, "auto")
    sentence = str(caught.value)
    assert "Connection refused" in sentence
    assert str(cache / "net-01234567.pth") in sentence
    assert "PREDICTOR_WEIGHTS=" in sentence
    assert "PREDICTOR_MODEL=efficientnet_lite0" in sentence


def test_a_path_that_names_no_file_stops_the_start(spec):
    with pytest.raises(WeightsError, match="nowhere.pth"):
        weights.locate(spec, "nowhere.pth")


@pytest.mark.parametrize(
    "save",
    [
        pytest.param(lambda state, path: torch.save(state, path), id="zip"),
        pytest.param(
            lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
            id="legacy, as vgg16-397923af.pth is",
        ),
        pytest.param(
            lambda state, path: torch.save({"state_dict": state, "epoch": 7}, path), id="checkpoint"
        ),
        pytest.param(
            lambda state, path: torch.save({f"module.{n}": t for n, t in state.items()}, path),
            id="DataParallel",
        ),
        pytest.param(
            lambda state, path: torch.save({f"_orig_mod.{n}": t for n, t in state.items()}, path),
            id="torch.compile",
        ),
        pytest.param(lambda state, path: save_file(state, path), id="safetensors called pth"),
        pytest.param(
            lambda state, path: save_file(state, path.with_suffix(".safetensors")), id="safetensors"
        ),
    ],
)
def test_every_usual_file_fills_the_network(spec, state, tmp_path, save):
    save(state, tmp_path / "net.pth")
    (path,) = tmp_path.iterdir()
    network = build_empty(spec, 10)
    weights.fill(network, weights.read(path), str(path), spec.name)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())


def plain(network):
    return network.state_dict()


def in_old_names(network):
    """As the published ViT files have them."""
    old = (".mlp.0.", ".mlp.linear_1."), (".mlp.3.", ".mlp.linear_2.")
    state = network.state_dict()
    for today, then in old:
        state = OrderedDict((name.replace(today, then), t) for name, t in state.items())
    return state


def without_counters(network):
    """As files from before batch norm counted."""
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
def test_files_with_a_history_of_their_own_answer_as_before(tmp_path, name, as_saved, save):
    torch.manual_seed(0)
    oracle = torchvision.models.get_model(name, num_classes=7).eval()
    if name in ("googlenet", "inception_v3"):
        oracle.transform_input = True  # as with published weights
    save(as_saved(oracle), tmp_path / "net.pth")
    network = build_empty(find_model(name), 7)
    weights.fill(network, weights.read(tmp_path / "net.pth"), "net.pth", name)
    batch = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch), oracle(batch))


class Innocent:
    """What a pickle may be made to run; here it would only be built."""


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n<!doctype html><title>404</title>", "web page", id="html"),
        pytest.param(b"{}", "cut off", id="text"),
        pytest.param(b"PK\x03\x04 and so on", "cut off", id="broken zip"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_holds_no_weights_is_named_for_what_it_is(tmp_path, content, sentence, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=sentence):
        weights.read(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_named_so(state, tmp_path, share, zipped):
    path = tmp_path / "net.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError, match="cut off"):
        weights.read(path)


def test_a_pickle_of_objects_is_not_executed(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(Innocent(), path)
    with pytest.raises(WeightsError, match="not loaded for safety's sake"):
        weights.read(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_archive_is_named_so(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(WeightsError, match="TorchScript"):
        weights.read(path)


def test_something_else_that_torch_can_read_is_named_by_its_type(tmp_path):
    path = tmp_path / "net.pth"
    torch.save([1, 2, 3], path)
    with pytest.raises(WeightsError, match="a list"):
        weights.read(path)


def test_weights_of_another_network_are_refused_with_what_is_missing(spec, state):
    with pytest.raises(WeightsError, match=r"of resnet18: it lacks .* and it has .* more names"):
        weights.fill(build_empty(find_model("resnet18"), 10), state, "net.pth", "resnet18")


def test_another_number_of_classes_is_named_with_the_setting_that_mends_it(spec, state):
    with pytest.raises(WeightsError, match="10 classes.* 1000.*PREDICTOR_LABELS"):
        weights.fill(build_empty(spec, 1000), state, "net.pth", spec.name)


def test_a_layer_of_another_shape_is_named(spec, state):
    other = state | {"features.0.weight": torch.zeros(64, 1, 3, 3)}
    with pytest.raises(WeightsError, match=r"features.0.weight has the shape \(64, 1, 3, 3\)"):
        weights.fill(build_empty(spec, 10), other, "net.pth", spec.name)

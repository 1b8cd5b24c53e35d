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
from predictor.models.building import build_empty
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


def test_path_without_a_file_is_an_error_that_names_it(spec):
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
def test_weights_are_read_from_every_usual_file(spec, state, tmp_path, save):
    save(state, tmp_path / "net.pth")
    (path,) = tmp_path.iterdir()
    network = build_empty(spec.build, 10)
    weights.fill(network, weights.read(path), str(path), spec.name)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert not any(p.requires_grad for p in network.parameters())


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
    weights.fill(network, weights.read(tmp_path / "net.pth"), "net.pth", name)
    batch = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch), oracle(batch))


class Pickled:
    """An object in a pickle, which could run any code when it is loaded."""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"\n<!doctype html><title>404</title>", "web page", id="html"),
        pytest.param(b"{}", "truncated", id="text"),
        pytest.param(b"PK\x03\x04 and so on", "truncated", id="broken zip"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_error_says_what_an_unreadable_file_is(tmp_path, content, reason, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason):
        weights.read(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.99])
def test_error_says_that_a_file_is_truncated(state, tmp_path, fraction, zipped):
    path = tmp_path / "net.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(WeightsError, match="truncated"):
        weights.read(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "net.pth"
    torch.save(Pickled(), path)
    with pytest.raises(WeightsError, match="Python objects, which are not loaded"):
        weights.read(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_error_says_that_a_file_is_torchscript(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(WeightsError, match="TorchScript"):
        weights.read(path)


def test_error_names_the_type_of_other_content(tmp_path):
    path = tmp_path / "net.pth"
    torch.save([1, 2, 3], path)
    with pytest.raises(WeightsError, match="a list"):
        weights.read(path)


def test_error_for_another_network_names_the_parameters(spec, state):
    with pytest.raises(WeightsError, match=r"of resnet18: missing .*, unexpected .* more"):
        weights.fill(build_empty(find_model("resnet18").build, 10), state, "net.pth", "resnet18")


def test_wrong_number_of_classes_names_the_setting_for_labels(spec, state):
    with pytest.raises(WeightsError, match="10 classes.* 1000.*PREDICTOR_LABELS"):
        weights.fill(build_empty(spec.build, 1000), state, "net.pth", spec.name)


def test_layer_of_another_shape_is_named(spec, state):
    other = state | {"features.0.weight": torch.zeros(64, 1, 3, 3)}
    with pytest.raises(WeightsError, match=r"features.0.weight has the shape \(64, 1, 3, 3\)"):
        weights.fill(build_empty(spec.build, 10), other, "net.pth", spec.name)

"""Clients that change what is served: tritonclient, and curl as in TorchServe's manual."""

import pytest

from clients.answers import MODEL, curl, run
from onnx_files import write
from running_server import Server
from web.managed import MANAGER

INPUT = "[input]\nsize = 64\nresize = 64\nmean = 0\nstd = 1\n"


@pytest.fixture
def managed(tmp_path):
    pytest.importorskip("onnxruntime")
    for place in (f"{MODEL}/1", f"{MODEL}/2", "dogs/1", "broken/1"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model.toml").write_text(INPUT)
        write(tmp_path / place / "model.onnx")
    (tmp_path / "broken/1/model.onnx").write_bytes(b"no model")
    (tmp_path / "store.toml").write_text(f"[models.{MODEL}]\nversions = [1]\n")
    server = Server(store=tmp_path, management_tokens=MANAGER).wait_until_ready()
    yield server
    server.close()


def test_triton_client_loads_and_unloads_models(managed):
    answers = run("triton_repository", managed.url, "dogs", MANAGER)
    assert "dogs" not in answers["before"]
    assert answers["loaded"]["dogs"] == "READY"
    assert "'config' is not accepted" in answers["override"]
    assert "dogs" not in answers["unloaded"]
    assert answers["unloaded"][MODEL] == "READY"
    assert "Model not found: cats" in answers["unknown"]
    assert "broken/1 cannot be loaded" in answers["broken"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ('curl -X POST "http://localhost:8081/models?url=densenet161&initial_workers=1'
         '&synchronous=true"',
         'Model \\"efficientnet_lite0\\" Version: 2.0 registered with 1 initial workers'),
        ('curl -v -X PUT "http://localhost:8081/models/densenet161?min_worker=1&synchronous=true"',
         "Workers scaled to 1 for model: efficientnet_lite0"),
        ("curl -v -X PUT http://localhost:8081/models/densenet161/1.0/set-default",
         'Default version successfully updated for model \\"efficientnet_lite0\\" to \\"1.0\\"'),
        ("curl -X DELETE http://localhost:8081/models/densenet161/1.0",
         'Model \\"efficientnet_lite0\\" unregistered'),
    ],
)  # fmt: skip
def test_lines_of_torchserves_manual_change_what_is_served(managed, photos, line, answer):
    assert answer in curl(f"{line} -H 'Authorization: Bearer {MANAGER}'", managed, photos)

"""Classification in bulk by Ray Data, in a network namespace of its own (``make ray``)."""

import csv
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from onnx_files import write
from paths import ROOT
from pictures import encode
from tools import ray_cluster
from waiting import wait_until

pytestmark = [
    pytest.mark.skipif(not find_spec("a2wsgi"), reason="Ray is not installed: run `make ray`."),
    pytest.mark.skipif(
        ray_cluster.why_not_here() is not None, reason=str(ray_cluster.why_not_here())
    ),
    pytest.mark.filterwarnings("ignore"),  # of Ray
]
BROKEN = {3: b"no image", 400: b"", 777: encode(Image.new("RGB", (40, 30)), "JPEG")[:300]}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(1000):
        small = Image.fromarray(random.integers(0, 255, (3, 4, 3), np.uint8))
        photo = encode(small.resize((80, 60)), "JPEG")
        (folder / f"{number:04}.jpg").write_bytes(BROKEN.get(number, photo))
    return folder


@pytest.fixture
def start(tmp_path):
    """Start a program of the app with a small network, in the folder of the photos."""
    environ = {"MODEL": str(write(tmp_path / "net.onnx")), "RESIZE": "64", "MEAN": "0", "STD": "1"}
    environ = {f"PREDICTOR_{name}": text for name, text in environ.items()}
    environ |= os.environ | {"PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}

    def start(*arguments):
        command = [sys.executable, "-m", *map(str, arguments)]
        log = (tmp_path / "log").open("ab")
        return subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=log, stdout=log)

    return start


def local(start, folder):
    """The rows that the local command writes."""
    command = start("predictor", "classify", "photos", "--output", "local.csv")
    assert command.wait(timeout=120) == 1  # some photos are broken
    with (folder / "local.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_killed_run_is_resumed_to_one_row_for_each_of_1000_photos(photos, start, tmp_path):
    import pyarrow.parquet as pq

    results = tmp_path / "results"
    bulk = ("deploy.ray.bulk", "photos", results, "--photos-per-file", 20)
    first = start(*bulk)
    wait_until(lambda: first.poll() is not None or len([*results.glob("part-*")]) > 5, 120)
    first.kill()
    first.wait()
    done = {path.name: path.stat().st_mtime_ns for path in results.glob("part-*")}
    assert 5 < len(done) < 50, (tmp_path / "log").read_text()

    assert start(*bulk).wait(timeout=120) == 1, (tmp_path / "log").read_text()
    table = pq.read_table(results)
    rows = table.to_pylist()
    expected = local(start, tmp_path)
    assert table.column_names == [*expected[0]]
    assert [row["file"] for row in rows] == [row["file"] for row in expected]
    assert len(rows) == 1000
    for row, other in zip(rows, expected, strict=True):
        found, right = row.pop("probability"), other.pop("probability")
        assert found == (pytest.approx(float(right)) if right else None)
        assert {name: "" if value is None else str(value) for name, value in row.items()} == other
    assert sum(row["error"] is not None for row in rows) == len(BROKEN)
    kept = {name: (results / name).stat().st_mtime_ns for name in done}
    assert kept == done  # the second run did not write them again
    assert [*results.glob(".*.parquet")] == []


def test_a_folder_without_photos_is_refused(start, tmp_path):
    (tmp_path / "empty").mkdir()
    assert start("deploy.ray.bulk", "empty", tmp_path / "results").wait(timeout=120) == 2
    assert "No image files" in (tmp_path / "log").read_text()

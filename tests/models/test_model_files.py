"""What a file or folder is, is decided by its content. Endings are wrong here on purpose."""

import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from predictor.errors import ModelError, WeightsError
from predictor.models.loading import load_model
from predictor.models.sources.file import recognise
from predictor.settings import Settings
from program_files import Small, deprecated, save_exported


def varint(value):
    head = bytes([value & 127 | (128 if value > 127 else 0)])
    return head + varint(value >> 7) if value > 127 else head


def part(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


IR, PRODUCER, GRAPH, OPSET = (
    b"\x08\x0a",
    part(2, b"pytorch"),
    part(7, b"g" * 500),
    part(8, b"\x10\x14"),
)


def zipped(*names):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x" * 100)

    return write


def cut(write):
    def write_and_cut(path):
        write(path)
        path.write_bytes(path.read_bytes()[:-200])

    return write_and_cut


def folder(**files):
    def write(path):
        path.mkdir()
        for name, text in files.items():
            (path / name.replace("_json", ".json").replace("_pb", ".pb")).write_text(text)

    return write


def content(data):
    return lambda path: path.write_bytes(data)


def scripted(path):
    with deprecated():
        torch.jit.save(torch.jit.script(nn.ReLU()), str(path))


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (scripted, "torchscript"),
        (lambda path: save_exported(path.with_suffix(".pt2"), Small().eval())
         and path.with_suffix(".pt2").rename(path), "exported"),
        (lambda path: torch.save(Small().state_dict(), path), "weights"),
        (lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), "weights"),
        (content(b"\x40\0\0\0\0\0\0\0{" + b" " * 64), "weights"),
        (content(IR + PRODUCER + GRAPH + OPSET), "onnx"),
        (content((IR + PRODUCER + GRAPH)[:-100]), "onnx"),
        (folder(config_json='{"architecture": "resnet18"}'), "timm"),
    ],
    ids=["TorchScript", "torch.export", "zip", "old torch.save", "safetensors",
         "ONNX", "truncated ONNX", "timm"],
)  # fmt: skip
def test_source_is_chosen_by_content(tmp_path, write, kind):
    path = tmp_path / "model.bin"
    write(path)
    assert recognise(path) == kind


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (content(b""), "is empty"),
        (zipped("version", "serialized_exported_program.json"), "before 2.8. Export"),
        (content(b"\n<!DOCTYPE html><html>"), "is a web page.* Download"),
        (content(b"<?xml version='1.0'?><net>"), "OpenVINO"),
        (content(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (content(b"\x89HDF\r\n\x1a\n"), "Keras.*onnx"),
        (zipped("config.json", "model.weights.h5"), "Keras.*onnx"),
        (content(b"\x1c\0\0\0TFL3"), "TensorFlow.*tf2onnx"),
        (folder(saved_model_pb="x"), "TensorFlow.*tf2onnx"),
        (zipped("MAR-INF/MANIFEST.json", "net.pth"), "TorchServe.*predictor convert .*model.bin"),
        (
            folder(config_json='{"model_type": "vit"}'),
            "Hugging Face.*from_pretrained.*net.py:build",
        ),
        (folder(notes="x"), "model.toml"),
        (zipped("a.npy"), "NumPy.*state_dict"),
        (zipped("net.pth", "labels.txt"), "archive. Unpack"),
        (content(b"\x1f\x8b\x08"), "archive. Unpack"),
        (content(b"\x89PNG\r\n"), "no model"),
        (content(IR + PRODUCER), "cannot open .*: No graph was found"),
        (content(b"layers: 3\n"), "no model"),
        (content(b":" + b"\xff" * 9 + b"\1\x08\1"), "no model"),  # of 2**64 bytes
        (content(b"\xff" * 5000), "no model"),
        (cut(scripted), "is truncated"),
        (cut(lambda path: torch.save(Small().state_dict(), path)), "is truncated"),
        (lambda path: torch.save(Small(), path), "whole model.*predictor convert"),
        (lambda path: torch.save(Small().state_dict(), path), "only weights.*net.py:build"),
        (content(pickle.dumps({"a": 1})), "model.bin"),
    ],
)
def test_file_that_is_not_served_says_what_it_is_and_what_to_do(tmp_path, write, sentence):
    path = tmp_path / "model.bin"
    write(path)
    with pytest.raises(
        (ModelError, WeightsError), match=f"model.bin.*{sentence}|{sentence}"
    ) as raised:
        load_model(Settings(model=str(path)), 1)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_code_without_a_name_says_how_to_name_it(tmp_path):
    (tmp_path / "net.py").write_text("def build(): ...")
    with pytest.raises(ModelError, match=r"net\.py is code.* net\.py:build|net\.py:build"):
        load_model(Settings(model=str(tmp_path / "net.py")), 1)


def test_truncated_export_is_not_taken_for_an_archive_inside_it(tmp_path):
    path = tmp_path / "net.pt2"
    save_exported(path, Small().eval())
    path.write_bytes(path.read_bytes()[:-500])
    assert "truncated" in recognise(path)
    assert json.dumps(recognise(path))

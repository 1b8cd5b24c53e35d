from dataclasses import replace

from predictor.models.scorer import ModelInfo

INFO = ModelInfo(
    "net", "/weights/net.pth", "cpu", "float32",
    threads=1, parameters=3, classes=3, outputs=3, labels="/weights/model.toml: labels",
)  # fmt: skip


def test_public_info_has_file_names_without_folders():
    assert INFO.public() == {
        "name": "net",
        "weights": "net.pth",
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "parameters": 3,
        "classes": 3,
        "outputs": 3,
        "labels": "model.toml: labels",
        "stands_in_for": None,
        "platform": "pytorch_eager",
    }


def test_only_random_weights_and_a_fallback_model_have_a_notice():
    assert INFO.notice is None
    assert "meaningless" in replace(INFO, weights="random").notice
    assert "net stands in for vgg16" in replace(INFO, stands_in_for="vgg16").notice

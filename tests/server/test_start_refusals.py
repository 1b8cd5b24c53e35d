"""A server whose model cannot be served ends, and says why in one sentence."""

import pytest

from predictor.server.console import EXIT_APP_LOAD_ERROR

DESCRIPTION = 'source = "squeezenet1_1"\nweights = "random"\n'
MISTAKES = {
    "a missing file": ({"model": "net.onnx"}, None, "There is no file, folder or model 'net.onnx'"),
    "a misspelt key": ({"model": "model.toml"}, "label = 1", "model.toml: there is no key label."),
    "a std of 0": ({"model": "model.toml"}, "[input]\nstd = 0", "model.toml: input.std is "),
    "labels of another model": (
        {"model": "model.toml"}, 'labels = ["a"]', "squeezenet1_1 has 1 output, which needs 2"),
    "a setting against the file": (
        {"model": "model.toml", "activation": "sigmoid"}, '[output]\nactivation = "softmax"',
        "PREDICTOR_ACTIVATION is 'sigmoid', but model.toml: output.activation is 'softmax'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_the_server_with_a_sentence(start, tmp_path, name):
    settings, text, sentence = MISTAKES[name]
    if text is not None:
        (tmp_path / "model.toml").write_text(DESCRIPTION + text)
        settings = settings | {"model": str(tmp_path / "model.toml")}
        sentence = sentence.replace("model.toml", settings["model"])
    server = start(**settings)
    assert server.process.wait(timeout=180) == EXIT_APP_LOAD_ERROR
    assert f"The model cannot be served. {sentence}" in server.log
    assert "Traceback" not in server.log

"""Call every other method of tritonclient: ``triton_status.py URL MODEL``."""

import json
import sys

import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def attempt(ask, *arguments):
    """Return the answer, or the client's own error text."""
    try:
        return ask(*arguments)
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def main():
    _, url, model = sys.argv
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        answers = {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready(model),
            "version_ready": client.is_model_ready(model, "1"),
            "unknown_model_ready": client.is_model_ready("no-such-model"),
            "unknown_version_ready": client.is_model_ready(model, "7"),
            "server": attempt(client.get_server_metadata),
            "metadata": attempt(client.get_model_metadata, model),
            "version_metadata": attempt(client.get_model_metadata, model, "1"),
            "tensor_metadata": attempt(client.get_model_metadata, f"{model}-tensor"),
            "unknown_metadata": attempt(client.get_model_metadata, "no-such-model"),
            "unknown_version_metadata": attempt(client.get_model_metadata, model, "7"),
            "config": attempt(client.get_model_config, model),
            "tensor_config": attempt(client.get_model_config, f"{model}-tensor"),
            "statistics": attempt(client.get_inference_statistics, model),
            "version_statistics": attempt(client.get_inference_statistics, model, "1"),
            "all_statistics": attempt(client.get_inference_statistics),
            "repository": attempt(client.get_model_repository_index),
            "load": attempt(client.load_model, model),
            "trace": attempt(client.get_trace_settings),
        }
    print(json.dumps(answers))


if __name__ == "__main__":
    main()

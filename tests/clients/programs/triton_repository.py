"""Load and unload a model by tritonclient: ``triton_repository.py URL MODEL TOKEN``."""

import json
import sys

import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def main():
    _, url, model, token = sys.argv
    headers = {"Authorization": f"Bearer {token}"}

    def states(client):
        index = client.get_model_repository_index(headers=headers)
        return {one["name"]: one["state"] for one in index}

    def refusal(call, *arguments, **options):
        try:
            call(*arguments, headers=headers, **options)
        except InferenceServerException as error:
            return error.message()

    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        answers = {"before": states(client)}
        client.load_model(model, headers=headers)
        answers["loaded"] = states(client)
        answers["override"] = refusal(client.load_model, model, config="{}")
        client.unload_model(model, headers=headers)
        answers["unloaded"] = states(client)
        answers["unknown"] = refusal(client.load_model, "cats")
        answers["broken"] = refusal(client.load_model, "broken")
    print(json.dumps(answers))


if __name__ == "__main__":
    main()

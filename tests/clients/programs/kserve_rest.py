"""KServe's own client, in both of its protocols: ``kserve_rest.py URL MODEL PHOTO…``."""

import asyncio
import base64
import json
import sys
from pathlib import Path

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from kserve.protocol.rest import v2_datamodels
from PIL import Image


async def attempt(call):
    """Return the answer, or the client's own error text."""
    try:
        return await call
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def instances(photos):
    return {"instances": [{"b64": base64.b64encode(photo).decode()} for photo in photos]}


async def speak_v1(url, model, photos):
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        calls = {
            "live": client.is_server_live(url, headers={"Accept": "application/json"}),
            "model_ready": client.is_model_ready(url, model),
            "unknown_model_ready": client.is_model_ready(url, "no-such-model"),
            "predict": client.infer(url, instances(photos), model_name=model),
            "explain": client.explain(url, model, instances(photos[:1])),
            "no_photo": client.infer(url, instances([b"no photo"]), model_name=model),
            "unknown_model": client.infer(url, instances(photos), model_name="no-such-model"),
        }
        return {name: await attempt(call) for name, call in calls.items()}


def request(model, photos, *, binary, **options):
    data = photos if binary else [base64.b64encode(photo) for photo in photos]
    image = InferInput("image", [len(photos)], "BYTES")
    image.set_data_from_numpy(np.array(data, dtype=np.object_), binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[image], **options)


def pixels(model, files):
    """Photos resized to the square, as raw pixels in JSON: the client's default for an array."""
    images = [Image.open(file).convert("RGB").resize((224, 224)) for file in files]
    batch = np.stack(images).transpose(0, 3, 1, 2)
    image = InferInput("image", list(batch.shape), "UINT8", data=batch)
    return InferRequest(model_name=model, infer_inputs=[image])


async def speak_v2(url, model, files, photos):
    classes = [RequestedOutput("logits", {"classification": 2})]
    binary_out = {"binary_data_output": True}
    headers = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:

        async def infer(request, model=model):
            answer = await client.infer(url, request, model_name=model, response_headers=headers)
            return answer.to_rest()[0]

        calls = {
            "live": client.is_server_live(url),
            "ready": client.is_server_ready(url),
            "model_ready": client.is_model_ready(url, model),
            "unknown_model_ready": client.is_model_ready(url, "no-such-model"),
            "json": infer(request(model, photos, binary=False, request_id="42")),
            "binary": infer(request(model, photos, binary=True, parameters=binary_out)),
            "classes": infer(request(model, photos, binary=True, request_outputs=classes)),
            "pixels": infer(pixels(model, files)),
            "no_photo": infer(request(model, [b"no photo"], binary=True)),
            "unknown_model": infer(request(model, photos, binary=True), "no-such-model"),
        }
        answers = {name: await attempt(call) for name, call in calls.items()}
    return answers | {"headers": headers}


async def validate(url, model, photo):
    """Check each answer with KServe's own data models; return the faults."""
    data = [base64.b64encode(photo).decode()]
    body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}
    async with httpx.AsyncClient(base_url=url) as client:
        answers = {
            "ServerLiveResponse": await client.get("/v2/health/live"),
            "ServerReadyResponse": await client.get("/v2/health/ready"),
            "ServerMetadataResponse": await client.get("/v2"),
            "ModelMetadataResponse": await client.get(f"/v2/models/{model}"),
            "ModelReadyResponse": await client.get(f"/v2/models/{model}/ready"),
            "ListModelsResponse": await client.get("/v1/models"),
            "InferenceResponse": await client.post(f"/v2/models/{model}/infer", json=body),
        }
    return {name: fault(getattr(v2_datamodels, name), a) for name, a in answers.items()}


def fault(expected, answer):
    try:
        expected.model_validate(answer.json(), strict=True)
    except ValueError as error:
        return str(error)
    return None


async def main():
    _, url, model, *names = sys.argv
    files = [Path(name) for name in names]
    photos = [file.read_bytes() for file in files]
    answers = {
        "v1": await speak_v1(url, model, photos),
        "v2": await speak_v2(url, model, files, photos),
        "faults": await validate(url, model, photos[0]),
    }
    print(json.dumps(answers))


if __name__ == "__main__":
    asyncio.run(main())

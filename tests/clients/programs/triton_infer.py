"""Classify photos with tritonclient, and print the answers as JSON, one for each request.

``triton_infer.py URL MODEL [options] PHOTO…``
"""

import argparse
import asyncio
import base64
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException, triton_to_np_dtype


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", type=lambda url: url.removeprefix("http://"))
    parser.add_argument("model")
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--by", choices=("infer", "async_infer", "aio"), default="infer")
    parser.add_argument("--version", default="")
    parser.add_argument("--id", default="")
    parser.add_argument("--datatype", default="BYTES")
    parser.add_argument("--side", type=int, default=224, help="side of a tensor, in pixels")
    parser.add_argument("--column", action="store_true", help="shape (N, 1), not (N,)")
    parser.add_argument("--json-input", action="store_true")
    parser.add_argument("--output", choices=("binary", "json"), help="default: the server's choice")
    parser.add_argument("--name", default="logits", help="name of the output")
    parser.add_argument("--classes", type=int, default=0)
    parser.add_argument(
        "--refused", action="store_true", help="first send a request that is refused"
    )
    parser.add_argument("--send", choices=("gzip", "deflate"))
    parser.add_argument("--receive", choices=("gzip", "deflate"))
    return parser.parse_args()


def encoded(photos, options):
    """Return the encoded files: raw in binary data, base64 in JSON."""
    files = [photo.read_bytes() for photo in photos]
    if options.json_input:
        files = [base64.b64encode(file) for file in files]
    array = np.array(files, dtype=np.object_)
    return array[:, np.newaxis] if options.column else array


def pixels(photo, side):
    """Resize and crop as for EfficientNet-Lite0: the shorter side to 256, then the centre."""
    image = Image.open(photo).convert("RGB")
    scale = 256 / min(image.size)
    image = image.resize([int(length * scale) for length in image.size], Image.Resampling.BICUBIC)
    left, top = (round((length - side) / 2) for length in image.size)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def published(config, parameter):
    """Return a parameter that has one number for each channel, separated by commas."""
    values = config["parameters"][parameter]["string_value"].split(",")
    return np.array(values, np.float32)


def tensor(photos, options):
    batch = np.stack([pixels(photo, options.side) for photo in photos])
    if options.datatype == "FP32":
        with triton.InferenceServerClient(options.url) as client:
            config = client.get_model_config(options.model)
        batch = (batch / np.float32(255) - published(config, "mean")) / published(config, "std")
    return batch.transpose(0, 3, 1, 2).astype(triton_to_np_dtype(options.datatype))


def request(photos, options, module=triton):
    """Return the arguments of ``infer``."""
    data = (encoded if options.datatype == "BYTES" else tensor)(photos, options)
    image = module.InferInput("image", list(data.shape), options.datatype)
    image.set_data_from_numpy(data, binary_data=not options.json_input)
    outputs = None
    if options.output or options.classes:
        binary = options.output != "json"
        outputs = [module.InferRequestedOutput(options.name, binary, options.classes)]
    return {
        "model_name": options.model,
        "inputs": [image],
        "model_version": options.version,
        "outputs": outputs,
        "request_id": options.id,
        "request_compression_algorithm": options.send,
        "response_compression_algorithm": options.receive,
    }


def infer(options):
    """Send all photos in one request."""
    asked = request(options.photos, options)
    with triton.InferenceServerClient(options.url) as client:
        if options.refused:
            with suppress(InferenceServerException):
                client.infer(**asked | {"model_name": "no-such-model"})
        return [client.infer(**asked)]


def async_infer(options):
    """Send each photo in a request and on a connection of its own."""
    requests = [request([photo], options) for photo in options.photos]
    with triton.InferenceServerClient(options.url, concurrency=len(requests)) as client:
        sent = [client.async_infer(**one) for one in requests]
        return [one.get_result() for one in sent]


async def infer_with_asyncio(options):
    """Send each photo in a request of its own. aiohttp always accepts gzip, deflate and br."""
    requests = [request([photo], options, triton_aio) for photo in options.photos]
    async with triton_aio.InferenceServerClient(options.url) as client:
        await client.get_model_metadata(options.model)
        return await asyncio.gather(*(client.infer(**one) for one in requests))


def aio(options):
    return asyncio.run(infer_with_asyncio(options))


def readable(answer):
    """Return the JSON of an answer, with the output's values instead of its bytes."""
    response = answer.get_response()
    (output,) = response["outputs"]
    values = answer.as_numpy(output["name"])
    texts = values.dtype.type in (np.object_, np.bytes_, np.str_)
    if texts:
        values = np.vectorize(lambda v: v.decode() if isinstance(v, bytes) else str(v))(values)
    return response | {"outputs": [output | {"data": values.tolist()}]}


def main():
    options = parse_arguments()
    try:
        answers = {"infer": infer, "async_infer": async_infer, "aio": aio}[options.by](options)
        print(json.dumps([readable(answer) for answer in answers]))
    except InferenceServerException as error:
        print(json.dumps({"status": error.status(), "message": error.message()}))


if __name__ == "__main__":
    main()

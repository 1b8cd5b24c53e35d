"""The way of Triton's own example of this name: ask the model what it wants, and send that.

``image_client.py URL MODEL CLASSES PHOTO…`` prints a list of (value, index, label) a photo.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import triton_to_np_dtype


def check(metadata, config):
    """Refuse what is no image classifier as that example does."""
    (wanted,), (output,), (configured,) = metadata["inputs"], metadata["outputs"], config["input"]
    batched = config["max_batch_size"] > 0
    assert output["datatype"] == "FP32", output
    assert sum(length > 1 for length in output["shape"][batched:]) == 1, output
    assert len(wanted["shape"]) == 3 + batched, wanted
    assert configured["format"] == "FORMAT_NCHW", configured
    assert wanted["shape"][batched:] == configured["dims"], (wanted, configured)
    return wanted, output


def preprocess(photo, wanted, config):
    """The whole photo squeezed into the square, and normalised as the server says."""
    height, width = wanted["shape"][-2:]
    image = Image.open(photo).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    published = (config["parameters"][name]["string_value"] for name in ("mean", "std"))
    mean, std = (np.array(values.split(","), np.float32) for values in published)
    normalised = (np.asarray(image) / 255 - mean) / std
    return normalised.transpose(2, 0, 1).astype(triton_to_np_dtype(wanted["datatype"]))


def main():
    _, url, model, classes, *photos = sys.argv
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=20) as client:
        metadata, config = client.get_model_metadata(model), client.get_model_config(model)
        wanted, output = check(metadata, config)
        batch = np.stack([preprocess(photo, wanted, config) for photo in photos])
        image = triton.InferInput(wanted["name"], batch.shape, wanted["datatype"])
        image.set_data_from_numpy(batch)
        requested = triton.InferRequestedOutput(output["name"], class_count=int(classes))
        sent = client.async_infer(model, [image], outputs=[requested], request_id="1")
        rows = sent.get_result().as_numpy(output["name"])
    assert len(rows) == len(photos), rows
    print(json.dumps([[text.decode().split(":") for text in row] for row in rows]))


if __name__ == "__main__":
    main()

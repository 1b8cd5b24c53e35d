"""As Triton's example of this name does: read the model's input from the server, and send that.

``image_client.py URL MODEL CLASSES PHOTO…`` prints a list of (value, index, label) per photo.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import triton_to_np_dtype


def check(metadata, config):
    """Stop if the model is not an image classifier, as that example does."""
    (expected,), (output,), (configured,) = metadata["inputs"], metadata["outputs"], config["input"]
    batched = config["max_batch_size"] > 0
    assert output["datatype"] == "FP32", output
    assert sum(length > 1 for length in output["shape"][batched:]) == 1, output
    assert len(expected["shape"]) == 3 + batched, expected
    assert configured["format"] == "FORMAT_NCHW", configured
    assert expected["shape"][batched:] == configured["dims"], (expected, configured)
    return expected, output


def preprocess(photo, expected, config):
    """Resize the whole photo to the square, and normalise it as the server says."""
    height, width = expected["shape"][-2:]
    image = Image.open(photo).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    published = (config["parameters"][name]["string_value"] for name in ("mean", "std"))
    mean, std = (np.array(values.split(","), np.float32) for values in published)
    normalised = (np.asarray(image) / 255 - mean) / std
    return normalised.transpose(2, 0, 1).astype(triton_to_np_dtype(expected["datatype"]))


def main():
    _, url, model, classes, *photos = sys.argv
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=20) as client:
        metadata, config = client.get_model_metadata(model), client.get_model_config(model)
        expected, output = check(metadata, config)
        batch = np.stack([preprocess(photo, expected, config) for photo in photos])
        image = triton.InferInput(expected["name"], batch.shape, expected["datatype"])
        image.set_data_from_numpy(batch)
        requested = triton.InferRequestedOutput(output["name"], class_count=int(classes))
        sent = client.async_infer(model, [image], outputs=[requested], request_id="1")
        rows = sent.get_result().as_numpy(output["name"])
    assert len(rows) == len(photos), rows
    print(json.dumps([[text.decode().split(":") for text in row] for row in rows]))


if __name__ == "__main__":
    main()

"""ONNX files of a small network, as other programs write them. This module needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT, FLOAT16, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
SHAPE: Sequence[str | int] = ("N", 3, 64, 64)
CLASSES = 20


def random_weights(channels: int = 3) -> dict[str, NDArray[np.float32]]:
    """Weights of a convolution and a linear layer, named as in ``nn.Sequential``."""
    random = np.random.default_rng(0)
    shapes = {"0.weight": (16, channels, 3, 3), "0.bias": (16,)}
    shapes |= {"4.weight": (CLASSES, 16), "4.bias": (CLASSES,)}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def network(
    weights: Mapping[str, NDArray[np.float32]],
    *,
    shape: Sequence[str | int | None] = SHAPE,
    type: int = FLOAT,
    normalise: tuple[Any, Any] | None = None,
    outputs: Mapping[str, Sequence[str | int]] | None = None,
    metadata: Mapping[str, str] | None = None,
    further_inputs: int = 0,
    operator: tuple[str, str] = ("", "Relu"),
    opset: int = 20,
    ir: int = 10,
) -> onnx.ModelProto:
    """Convolution, ReLU, mean over the image, linear layer: logits.

    Args:
        shape: of the input. Its last side is the channels' if it is 1, 3 or 4.
        normalise: mean and deviation that the graph itself applies.
        outputs: names of the outputs and their shapes. Those with two sides are the logits.
        operator: what stands in place of ReLU, with its domain.
    """
    tensors = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    if normalise is not None:
        for name, values in zip(("mean", "deviation"), normalise, strict=True):
            tensors[name] = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
    nodes, features, logits = _layers(shape, type, normalise is not None, operator)
    outputs = outputs or {"logits": (shape[0] if shape else "N", CLASSES)}
    of_type = FLOAT16 if type == FLOAT16 else FLOAT
    for name, sides in outputs.items():
        source = logits if len(sides) == 2 else features
        nodes.append(helper.make_node("Cast", [source], [name], to=of_type))
    inputs = [helper.make_tensor_value_info("image", type, shape)]
    more = [f"more-{number}" for number in range(further_inputs)]
    inputs += [helper.make_tensor_value_info(name, FLOAT, [1]) for name in more]
    graph = helper.make_graph(
        nodes, "network", inputs,
        [helper.make_tensor_value_info(name, of_type, sides) for name, sides in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )  # fmt: skip
    domains = [helper.make_opsetid("", opset)]
    domains += [helper.make_opsetid(operator[0], 1)] if operator[0] else []
    model = helper.make_model(graph, opset_imports=domains, ir_version=ir)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def _layers(
    shape: Sequence[str | int | None], type: int, normalises: bool, operator: tuple[str, str]
) -> tuple[list[onnx.NodeProto], str, str]:
    """Return the nodes, and the names of the feature maps and of the logits."""
    nodes, image = [], "image"

    def add(kind: str, *further: str, domain: str = "", **attributes: Any) -> str:
        nonlocal image
        name = f"{kind}-{len(nodes)}"
        nodes.append(helper.make_node(kind, [image, *further], [name], domain=domain, **attributes))
        image = name
        return name

    if type != FLOAT:
        add("Cast", to=FLOAT)
    if len(shape) == 3:
        nodes.append(helper.make_node("Constant", [], ["first"], value_ints=[0]))
        add("Unsqueeze", "first")
    elif shape[3] in (1, 3, 4):
        add("Transpose", perm=[0, 3, 1, 2])
    if normalises:
        add("Sub", "mean")
        add("Div", "deviation")
    add("Conv", "0.weight", "0.bias")
    features = add(operator[1], domain=operator[0])
    add("GlobalAveragePool")
    add("Flatten")
    return nodes, features, add("Gemm", "4.weight", "4.bias", transB=1)


def write(path: Path, *, weights: Mapping[str, Any] | None = None, **options: Any) -> Path:
    """Write a file, with random weights by default. For the options see :func:`network`."""
    path.write_bytes(network(weights or random_weights(), **options).SerializeToString())
    return path


def write_in_two(path: Path) -> Path:
    """Write a file, and a second one, ``weights.data``, that has its weights. Return the second."""
    onnx.save_model(
        network(random_weights()),
        path,
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    return path.parent / "weights.data"

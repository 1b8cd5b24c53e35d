"""The options of the formats: one table, for Python and for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from predictor.errors import ExportError


def _option(formats: str, help: str, default: Any = False, **texts: Any) -> Any:
    """Declare an option. ``formats`` are those that it is for; ``texts`` are of argparse."""
    return field(default=default, metadata={"formats": formats, "help": help, "texts": texts})


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen about a format. Every other format refuses the option."""

    # fmt: off
    frozen: bool = _option("torchscript", "fold batch norms, and make the weights constants")
    lite: bool = _option("torchscript", "for the lite interpreter of PyTorch Mobile")
    compile: bool = _option("pt2 cpp", "compile to native code with AOTInductor and g++")
    input: str = _option("onnx", "what the graph takes; uint8: it normalises pixels itself",
                         "float32", choices=("float32", "uint8"))
    static: bool = _option("onnx", "batch 1 and fixed shapes, for NPU, FPGA and ASIC tools")
    opset: int | None = _option("onnx", "version of the operators (default: of the exporter)",
                                None, type=int, metavar="N")
    int8: bool = _option("onnx", "quantise weights and activations; needs --calibrate")
    calibrate: tuple[str, ...] = _option("onnx", "photos whose activations set the int8 ranges",
                                         (), nargs="+", metavar="PHOTOS")
    judge: str = _option("onnx", "photos with their classes (as `evaluate` takes them), to measure"
                         " what int8 loses", "", metavar="FOLDER|FILE.csv")
    accept_loss: float = _option("onnx", "top-1 that int8 may lose (default: 1 %%)", 1.0,
                                 type=float, metavar="PERCENT")
    eager: bool = _option("torchserve", "model.py and a state_dict instead of TorchScript")
    archive_format: str = _option("torchserve", "no-archive: a folder, fast for large models",
                                  "default", choices=("default", "no-archive"))
    handler: str = _option("torchserve", "predictor answers as this app does; TorchServe's own"
                           " image_classifier prepares photos in its own way",
                           "predictor", choices=("predictor", "image_classifier"))
    platform: str = _option("triton", "what runs the model; onnxruntime: a full Triton, on tensors",
                            "python", choices=("python", "onnxruntime"))
    # fmt: on

    def check(self, format: str) -> None:
        """Raise ExportError if an option is set that the format does not have."""
        for one in fields(self):
            formats = one.metadata["formats"].split()
            if getattr(self, one.name) != one.default and format not in formats:
                raise ExportError(
                    f"--{one.name.replace('_', '-')} is an option of {' and '.join(formats)}, not"
                    f" of {format}."
                )

    def of(self, format: str) -> Options:
        """Return the options that a format has, and defaults for the others."""
        own = [one.name for one in fields(self) if format in one.metadata["formats"].split()]
        return Options(**{name: getattr(self, name) for name in own})


def arguments() -> dict[str, dict[str, Any]]:
    """Return the options as arguments of argparse."""
    return {
        f"--{one.name.replace('_', '-')}": {
            "help": f"{one.metadata['formats'].replace(' ', ', ')}: {one.metadata['help']}",
            "default": one.default,
            **(one.metadata["texts"] or {"action": "store_true"}),
        }
        for one in fields(Options)
    }

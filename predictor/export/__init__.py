"""A served model → another runtime's files, with the proof that they answer alike.

A format is a module of this package, and a line in :data:`FORMATS`. It has:

* ``TOLERANCE``: the largest allowed logit difference, as a part of the largest logit.
* ``write(subject, folder, options) -> dict``: write the artefact, or raise ``ExportError``. The
  dict is for ``export.json`` and the table: what the user should know about how it was written.
* ``runtime(folder, options)``: a context manager that yields a
  :data:`predictor.export.artefact.Run`: the artefact in its own runtime.
* ``readme(subject, options) -> str``: how to run the artefact, in Markdown.
* ``LOG_PROBABILITIES = True``, if the runtime answers probabilities instead of logits.

Nothing that serves imports this package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from predictor.export.running import Exported
    from predictor.settings import Settings

# Each format with its line in --help.
FORMATS = {
    "torchscript": "TorchScript, for C++ and older programs",
    "cpp": "a C++ program, with LibTorch and CMake",
    "pt2": "a program of torch.export, or native code, for Python and C++",
    "onnx": "ONNX, for ONNX Runtime without torch, and for NPU, FPGA and ASIC tools",
    "torchserve": "a .mar archive for TorchServe",
    "triton": "a model repository for Triton, which takes encoded photos",
    "executorch": "ExecuTorch with XNNPACK, for Android, iOS and Linux",
}


def export(
    format: str,
    out: str | Path | None = None,
    check: Iterable[str | Path] | None = None,
    settings: Settings | None = None,
    **options: Any,
) -> Exported:
    """Export the model that the settings name, run the artefact and compare its answers.

    Args:
        format: a key of :data:`FORMATS`.
        out: the new folder for the artefact; None: the model's and the format's names.
        check: photos and folders of photos to compare; None: three sample photos; empty: none.
        settings: of the model; None: those of the environment.
        options: fields of :class:`predictor.export.options.Options`, such as ``lite=True``.

    Raises:
        StartError: the model cannot be loaded, or exported in this format; or the artefact's
            answers differ from the server's, or int8 loses more than is accepted. It is kept then,
            and ``export.json`` has the figures.
    """
    from predictor.errors import ExportError
    from predictor.export.options import Options
    from predictor.export.running import load, run
    from predictor.settings import Settings

    subject, photos = load(settings or Settings.from_env(), check)
    exported = run(format, subject, photos, out, Options(**options))
    if wrong := exported.failure or exported.loss:
        raise ExportError(f"{exported.folder}: {wrong}")
    return exported


class _Callable(ModuleType):
    """``predictor.export`` is this module, and the public function, too."""

    def __call__(self, *arguments: Any, **named: Any) -> Exported:
        return export(*arguments, **named)


sys.modules[__name__].__class__ = _Callable

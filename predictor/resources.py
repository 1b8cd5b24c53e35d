"""Paths of the files that are shipped with the code: class names, templates and so on."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource(name: str, package: Path = PACKAGE) -> Path:
    """Return the path of a file or folder that is shipped with the app.

    A wheel has these files in ``predictor/_resources``; a clone of the repository has them in its
    top folder.

    Args:
        name: for example ``imagenet_class_index.json`` or ``templates``.
        package: the folder of the installed package.
    """
    in_wheel = package / "_resources"
    return (in_wheel if in_wheel.is_dir() else package.parent) / name

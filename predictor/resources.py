"""Paths of the files that are shipped with the code: class names, templates and so on."""

from pathlib import Path


def resource(name: str, package: Path = Path(__file__).parent) -> Path:
    """Return the path of a file or folder that is shipped with the app, such as ``templates``.

    A wheel has these files in ``predictor/_resources``; a clone of the repository has them in its
    top folder.
    """
    in_wheel = package / "_resources"
    return (in_wheel if in_wheel.is_dir() else package.parent) / name

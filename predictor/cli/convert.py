"""``predictor convert FILE``: a pickled model, or an archive for TorchServe → a folder to serve."""

import argparse
import sys
import warnings
from pathlib import Path

from predictor.cli.photos import fail
from predictor.errors import StartError


def run(options: argparse.Namespace) -> int:
    """Convert the file that the options name. Return the exit status."""
    path = Path(options.path)
    folder = Path(options.output or (f"{path}-model" if path.is_dir() else path.with_suffix("")))
    if not path.exists():
        return fail(f"{path} does not exist.")
    if folder.exists():
        return fail(f"{folder} exists. Remove it, or name another folder with --output.")
    print(f"{path} is executed now. It can run any program.", file=sys.stderr)
    sys.path.insert(0, "")  # for classes of the current folder
    warnings.simplefilter("ignore", FutureWarning)  # torch prefers torch.export to TorchScript
    from predictor.models.conversion import convert  # here: torch takes seconds

    try:
        remaining = convert(path, folder, Path(options.program) if options.program else None)
    except StartError as error:
        return fail(str(error))
    print(f"{folder} answers as {path} does. {remaining}".rstrip())
    print(f"Serve it: PREDICTOR_MODEL={folder} predictor serve")
    return 0

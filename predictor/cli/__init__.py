"""The commands ``predictor classify`` and ``predictor serve``. No other package imports them."""

import argparse
import sys

from predictor import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit status. ``photo.jpg`` alone means ``classify photo.jpg``.

    Import a command only when it runs, so that ``--help`` does not load NumPy or torch.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    if arguments[0] not in ("classify", "serve", "-h", "--help", "--version"):
        arguments = ["classify", *arguments]
    if arguments[0] == "serve":
        _, further = parser.parse_known_args(arguments)
        from predictor.cli import serve

        return serve.run(further)
    options = parser.parse_args(arguments)
    from predictor.cli import classify

    return classify.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predictor",
        description="Classify photos, on the command line or over HTTP.",
        epilog="PREDICTOR_MODEL and the other PREDICTOR_ variables configure both commands.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    classify = commands.add_parser(
        "classify",
        help="classify photos and folders of photos",
        description="Print the best classes of each photo. `predictor photo.jpg` does the same.",
        epilog="Exit status: 0 all photos are classified, 1 some cannot be read, 2 the command"
        " cannot run, 130 interrupted, 141 the reader of the output has ended. If the weights of"
        " the default model cannot be downloaded, a small model replaces it; set PREDICTOR_MODEL to"
        " choose the model.",
    )
    add = classify.add_argument
    add("paths", nargs="*", metavar="PATH", help="photo, folder, or - for a photo on stdin")
    add("--files-from", metavar="FILE", help="read more paths from FILE, one per line; - is stdin")
    add(
        "--top-k", type=int, metavar="N",
        help="classes per photo (default: 1, or all that are likely if several can be right)",
    )  # fmt: skip
    add(
        "--format", choices=("table", "csv", "jsonl"),
        help="default: what the name of --output ends in, or table",
    )  # fmt: skip
    add("--output", metavar="FILE", help="write the results to FILE instead of stdout")
    add(
        "--resume", action="store_true",
        help="continue FILE after a broken run: skip the photos that it has (csv and jsonl)",
    )  # fmt: skip
    commands.add_parser(
        "serve",
        help="serve POST /predict and a page",
        usage="predictor serve [-h] [GUNICORN OPTION ...]",
        description="Serve POST /predict and a page with gunicorn, on http://127.0.0.1:5000.",
        epilog="The environment variables HOST and PORT change the address. Further options are"
        " passed to gunicorn: predictor serve --certfile cert.pem --keyfile key.pem",
        allow_abbrev=False,
    )
    return parser

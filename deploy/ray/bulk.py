"""Classify the photos of folders on many machines: ``python -m deploy.ray.bulk photos/ results/``.

Ray Data gives each list of photos to one process, which writes one Parquet file. The file has the
columns of ``predictor classify --format csv``. Photos and results are on storage that all machines
have at the same path; none of them passes through Ray. A run that was broken off is continued by
the same command: what is done are the files that exist.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from tqdm import tqdm

from predictor.cli import photos, resume
from predictor.cli.output import COLUMNS
from predictor.cli.photos import Outcome
from predictor.errors import PredictorError
from predictor.images.files import Finder

LISTS = "_lists"  # readers of Parquet ignore names that begin with "_" or "."
TYPES = {"class_index": pa.int64(), "probability": pa.float64()}
SCHEMA = pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS])
FAILED = b"failed"  # in the metadata of a file of results: how many photos have an error


def main() -> int:
    """Classify what the command line names. Return the exit status of ``predictor classify``."""
    options = _parser().parse_args()
    return photos.exit_status(partial(_run, options), "The same command continues the run.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.ray.bulk", description=__doc__)
    parser.add_argument("paths", nargs="+", help="photos and folders")
    parser.add_argument("output", type=Path, help="folder for the results; created if missing")
    parser.add_argument("--top-k", type=int, help="classes for each photo")
    parser.add_argument(
        "--cpus", type=int, help="processors of a process (default: 4, or a node's)"
    )
    parser.add_argument("--photos-per-file", type=int, default=1000, metavar="N",
                        help="photos in a file of results (default: 1000)")  # fmt: skip
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.top_k is not None and options.top_k < 1:
        return photos.fail(f"--top-k is {options.top_k}; it must be at least 1.")
    output: Path = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    lists = output / LISTS
    if not lists.exists():
        write_lists(options.paths, lists, options.photos_per_file)
    names = sorted(path.name for path in lists.iterdir())
    if not names:
        lists.rmdir()  # the next run looks again
        return photos.fail("No image files found in the given paths.")
    todo = [name for name in names if not (output / name).exists()]
    if todo:
        classify(todo, output, options.cpus, options.top_k)
    for left in output.glob(".*.parquet"):  # of processes that were killed
        left.unlink(missing_ok=True)
    metadata = (pq.read_schema(output / name).metadata for name in names)
    return 1 if any(int(found[FAILED]) for found in metadata) else 0


def write_lists(paths: list[str], lists: Path, size: int) -> None:
    """Find the photos, and write lists of ``size`` names into the folder ``lists``.

    The folder appears when it is complete. Later runs use the same lists.
    """
    finder, part = Finder(), lists.with_name(f".{LISTS}.{os.getpid()}")
    part.mkdir()
    found = finder.find(paths)
    for number in count():
        if not (names := list(islice(found, size))):
            break
        column = pa.array([os.fsencode(name) for name in names], pa.binary())
        pq.write_table(pa.table({"file": column}), part / f"part-{number:06}.parquet")
    part.rename(lists)
    if summary := finder.summary():
        print(summary, file=sys.stderr)


def classify(names: list[str], output: Path, cpus: int | None, top_k: int | None) -> None:
    """Classify the photos of these lists on all nodes of the Ray cluster."""
    ray.init(include_dashboard=False)
    cpus = cpus or min(4, *(_cpus(node) for node in ray.nodes() if _cpus(node)))
    ray.data.DataContext.get_current().enable_progress_bars = False
    lists = ray.data.from_items([{"list": name} for name in names], override_num_blocks=len(names))
    environ = {name: text for name, text in os.environ.items() if name.startswith("PREDICTOR_")}
    done = lists.map_batches(
        ListClassifier,
        fn_constructor_args=(output, os.getcwd(), environ, cpus, top_k),
        batch_size=1,
        num_cpus=cpus,
        compute=ray.data.ActorPoolStrategy(min_size=1),  # grows as far as there are processors
    )
    for _ in tqdm(done.iter_rows(), None, len(names), unit="file", disable=None):
        pass


def _cpus(node: Mapping[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0


class ListClassifier:
    """A process with the model, which classifies one list of photos after the other."""

    def __init__(
        self, output: Path, folder: str, environ: dict[str, str], cpus: int, top_k: int | None
    ) -> None:
        """Load the model. ``folder`` and ``environ`` are the driver's, ``output`` is absolute."""
        os.chdir(folder)
        os.environ |= environ
        classifier = photos.load(cpus)
        if classifier is None:
            raise RuntimeError("The model cannot be loaded. The log of this process says why.")
        self._output, self._classifier = output, classifier
        self._classify = partial(photos.classify, classifier, top_k)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Write the results of each list in the batch. Return the batch."""
        for name in batch["list"]:
            self._write(str(name))
        return batch

    def _write(self, name: str) -> None:
        listed = pq.read_table(self._output / LISTS / name)["file"].to_pylist()
        found = photos.in_parallel(map(os.fsdecode, listed), self._classify, self._classifier)
        outcomes = list(found)
        failed = sum(isinstance(outcome, PredictorError) for _, outcome in outcomes)
        table = pa.Table.from_pylist([*chain(*(rows(*pair) for pair in outcomes))], SCHEMA)
        table = table.replace_schema_metadata({FAILED: str(failed)})
        # Another process may write the same file: that of a driver which has been killed.
        part = self._output / f".{os.getpid()}.{os.uname().nodename}.{name}"
        pq.write_table(table, part)
        part.rename(self._output / name)


def rows(name: str, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield a row for each class, or one with the error."""
    file = resume.as_written(name)
    if isinstance(outcome, PredictorError):
        yield {"file": file, "error": str(outcome)}
    else:
        yield from ({"file": file, **prediction._asdict()} for prediction in outcome)


if __name__ == "__main__":
    sys.exit(main())

"""Which state of the store each process of this server serves.

Each process writes one small file into a folder of the server's own, named by its id and start
time. The kernel keeps such a folder in memory, and no lock is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from predictor.processes import identity

POLL_S = 0.05  # how soon wait_followed returns


@dataclass(frozen=True, slots=True)
class Report:
    """What one process serves."""

    pid: int
    revision: str  # of the wanted state that it follows, as far as it can
    failures: Mapping[tuple[str, int], str]  # model and version → why it cannot be loaded
    loading: Collection[str] = ()  # models of which a version is still loading


class Followers:
    """The reports of all processes of this server."""

    def __init__(self, folder: Path | None) -> None:
        """Use this folder, which all processes can write. None: there is this process only."""
        self._folder = folder
        self._own: Report | None = None

    def report(
        self, revision: str, failures: Mapping[tuple[str, int], str], loading: Collection[str] = ()
    ) -> None:
        """Replace this process's report.

        Raises:
            OSError: the folder is full or gone. The last report stays.
        """
        self._own = Report(os.getpid(), revision, dict(failures), [*loading])
        if self._folder is None:
            return
        listed = [[name, version, reason] for (name, version), reason in failures.items()]
        file = self._folder / f"{identity(os.getpid())}.json"
        new = file.with_suffix(".new")
        try:
            said = {"revision": revision, "failures": listed, "loading": [*loading]}
            new.write_text(json.dumps(said), "utf-8")
            new.replace(file)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def reports(self) -> list[Report]:
        """Return the last report of each process that runs, by its id. Delete those of others."""
        if self._folder is None:
            return [self._own] if self._own else []
        return sorted(self._read(self._folder), key=lambda report: report.pid)

    def waiting_for(self, revision: str, model: str) -> list[int]:
        """Return the ids of the processes that do not serve this revision of a model yet."""
        reports = self.reports()
        return [one.pid for one in reports if one.revision != revision or model in one.loading]

    def wait_followed(self, revision: str, model: str, timeout_s: float) -> list[int]:
        """Wait for all processes; return the ids of those that do not serve the model in time.

        A process counts from its first report.
        """
        deadline = monotonic() + timeout_s
        while (waiting := self.waiting_for(revision, model)) and monotonic() < deadline:
            sleep(POLL_S)
        return waiting

    def _read(self, folder: Path) -> Iterator[Report]:
        for file in folder.glob("*.json"):
            pid = int(file.stem.partition("-")[0])
            with suppress(FileNotFoundError):  # another process has just deleted it
                if identity(pid) != file.stem:
                    file.unlink()
                    continue
                found = json.loads(file.read_text("utf-8"))
                failures = {(name, version): why for name, version, why in found["failures"]}
                yield Report(pid, found["revision"], failures, found["loading"])

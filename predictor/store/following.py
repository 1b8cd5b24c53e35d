"""The models of this process: what is wanted is loaded, and what is not wanted is unloaded.

A change never interrupts what is served: a new version is loaded beside the old one, then requests
move over, and the old one is unloaded when its last request is answered.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from predictor.engine.admission import Process
from predictor.engine.classifier import Classifier
from predictor.engine.explainer import Explainer
from predictor.engine.memory import collect_garbage, return_freed
from predictor.engine.metrics import Metrics
from predictor.engine.served import Served
from predictor.errors import StartError, StoreError
from predictor.settings import Settings
from predictor.store.followers import Followers
from predictor.store.patience import Patience
from predictor.store.plan import Key, Load, Now, Step, Switch, Unload, plan, shortfalls
from predictor.store.table import Model, Table
from predictor.store.wanted import Entry, Wanted
from predictor.store.watch import Watch

log = logging.getLogger(__name__)


class Following:
    """Follows what is wanted, on a thread of its own.

    Attributes:
        loading: done when the first state that was wanted is served, or all of it but what hangs;
            it has the exception if no model could be loaded.
        process: what all models share.
        error: why the newest state of the store cannot be followed; None if it is.
    """

    def __init__(
        self,
        settings: Settings,
        process: Process,
        read: Callable[[], Wanted],
        make: Callable[[Entry], Classifier],
        paths: Callable[[], Iterable[Path]] | None = None,
        followers: Followers | None = None,
    ) -> None:
        """Create the store; :meth:`start` loads the models.

        Args:
            settings: of the server.
            process: what the models share.
            read: returns what is wanted now; raises StartError if that cannot be known.
            make: returns the classifier of a version, which has not begun to load.
            paths: files and folders of which a change means that something else may be wanted.
            followers: the reports of this server's processes.
        """
        self.settings, self.process = settings, process
        self.loading: Future[None] = Future()
        self.error: str | None = None
        self.metrics = Metrics(process, self.served, self.is_ready)
        self._read, self._make = read, make
        self.watch, self.followers = Watch(), followers or Followers(None)
        if paths is not None:
            self.watch.add(paths, self.follow)
        self._explainer = Explainer(process, settings)
        self._wanted, self._table = Wanted({}, {}, None), Table()
        self._switched = Switch({}, None)  # what the table was made of
        # With the signature of the files: what is loaded, what is being loaded, and what cannot be
        # loaded, with the reason, and whether that was the store's, such as a lack of memory.
        self._loaded: dict[Key, tuple[str, Served]] = {}
        self._loading: dict[Key, tuple[str, Served]] = {}
        self._failed: dict[Key, tuple[str, str, bool]] = {}
        self._tasks = ThreadPoolExecutor(1, "store")  # of this thread is all that follows
        self._patience = Patience(self._submit)
        self._start_once, self._closed = threading.Lock(), False
        process.slots.retry_after_s = process.several.retry_after_s = self._backlog_s

    def start(self) -> None:
        """Begin to load what is wanted, in the background. Further calls do nothing."""
        self.watch.start()  # also of what has been added since the first call
        if self._start_once.acquire(blocking=False):
            self.follow()

    def follow(self) -> None:
        """Look again, in the background, what is wanted, and serve that."""
        self._submit(self._look)

    def _submit(self, event: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the process is ending
            self._tasks.submit(self._proceed, event)

    def _proceed(self, event: Callable[[], None]) -> None:
        """Note what has happened, and carry out all steps that this allows."""
        try:
            event()
            while steps := plan(self._wanted, self._now()):
                self._do(steps[0])
        except Exception as error:
            before, self.error = self.error, str(error)
            if before != self.error:  # the start looks twice
                kept = "What is served stays as it is. " if self._table.models else ""
                is_defect = not isinstance(error, StartError)
                log.error("%s%s", kept, error, exc_info=is_defect)
        loads = self._loading.keys() & self._wanted.entries.keys()
        if not self.loading.done():
            self._begin_to_serve(bool(loads))
        self._patience.is_over &= bool(loads)
        if self.loading.done():
            self._report({name for name, _ in loads})

    def _look(self) -> None:
        self._wanted, self.error = self._read(), None
        kept = self._failed.keys() & self._wanted.entries.keys()  # a version that comes back is
        self._failed = {key: self._failed[key] for key in kept}  # loaded again

    def _begin_to_serve(self, loads: bool) -> None:
        """End the first load, or wait for a load to end."""
        self._patience.stop()
        # Requests that name no model need the default one, which other processes may have.
        has_default = self._table.default or (self._wanted.default is None and self._table.models)
        if loads and not (self._patience.is_over and has_default):
            return self._patience.renew()
        reasons = [self.error or "", *(reason for _, reason, _ in self._failed.values())]
        if any(reasons) and not self._table.models:
            self.loading.set_exception(StartError(" ".join(filter(None, reasons))))
        else:  # a store may be empty
            self.loading.set_result(None)

    def _report(self, loading: Collection[str]) -> None:
        """Say in the metrics what fails, and to the other processes what this one serves."""
        entries = self._wanted.entries.items()
        failed = {key for key, e in entries if self._failed.get(key, ("",))[0] == e.signature}
        self.metrics.note_failures(failed, self.error)
        if self.error is not None:
            return
        for sentence in () if loading else shortfalls(self._wanted, self._now()).values():
            log.error("%s", sentence)
        failures = {key: reason for key, (_, reason, _) in self._failed.items()}
        try:
            self.followers.report(self._wanted.revision, failures, loading)
        except OSError as error:
            log.error("The other processes cannot see what this one serves: %s", error)

    def _now(self) -> Now:
        return Now(
            loaded={key: signature for key, (signature, _) in self._loaded.items()},
            failed={key: signature for key, (signature, *_) in self._failed.items()},
            loading={key: signature for key, (signature, _) in self._loading.items()},
            stalled=self._patience.is_over,
            routes=self._switched.routes,
            default=self._switched.default,
        )

    def _do(self, step: Step) -> None:
        match step:
            case Load(entry):
                self._load(entry)
            case Switch():
                self._switch(step)
            case Unload(name, version):
                self._unload(self._loaded.pop((name, version))[1])

    def _load(self, entry: Entry) -> None:
        """Begin to load a version; other steps do not wait for that."""
        try:
            served = Served(self._make(entry), self._explainer, entry.version)
        except Exception as error:
            log.error("The model cannot be served. %s", error)
            return self._fail(entry, error)
        self._loading[entry.name, entry.version] = entry.signature, served
        event = partial(self._finish, entry, served)
        loading = served.classifier.loading
        served.classifier.start()
        loading.add_done_callback(lambda _: self._submit(event))

    def _finish(self, entry: Entry, served: Served) -> None:
        """Serve what has been loaded. It takes the requests of an older state of its files."""
        key = entry.name, entry.version
        error = served.classifier.loading.exception()
        if self._loading.get(key) != (entry.signature, served):  # newer files are being loaded
            return None if error else self._unload(served)
        del self._loading[key]
        if error is not None:
            return self._fail(entry, error)
        self.metrics.count(served)
        self._failed.pop(key, None)
        before, self._loaded[key] = self._loaded.get(key), (entry.signature, served)
        if before is not None:
            self._switch(self._switched)
            self._unload(before[1])

    def _fail(self, entry: Entry, error: BaseException) -> None:
        # Not the error itself: its traceback would keep the model in the memory.
        is_ours = isinstance(error, StoreError)
        self._failed[entry.name, entry.version] = entry.signature, str(error), is_ours

    def _switch(self, step: Switch) -> None:
        models, default = dict[str, Model](), None
        for name, route in step.routes.items():
            versions = {number: self._loaded[name, number][1] for number in route.versions}
            served_as = versions[route.default].name  # a model that stands in has another name
            models[served_as] = Model(route, versions)
            default = served_as if name == step.default else default
        self._switched, self._table = step, Table(models, default)
        self.process.share_slots(len(models) > 1)

    def _unload(self, served: Served) -> None:
        """Free a version when its last request is answered; other changes do not wait for that."""

        def close() -> None:
            served.close()
            self.metrics.forget(served)
            self._submit(partial(self._retry, threading.current_thread()))

        threading.Thread(target=close, name="unload", daemon=True).start()

    def _retry(self, thread: threading.Thread) -> None:
        """Return the memory that has become free, and load what did not fit into it."""
        thread.join()  # it refers to the version
        collect_garbage()  # a model and its threads refer to each other
        return_freed()
        self._failed = {key: failed for key, failed in self._failed.items() if not failed[2]}

    # What it serves now

    def served(self) -> list[Served]:
        """Return all versions that answer requests now."""
        return [*self._table]

    def is_ready(self) -> bool:
        """Return whether this process can take requests."""
        closed = self.process.draining or self.process.decoders.turns.full
        return self.loading.done() and not (closed or self.unhealthy_reason())

    def unhealthy_reason(self) -> str | None:
        """Return why this process must be replaced; None while it is healthy or loading."""
        if self.loading.done() and self.loading.exception() is not None:
            return "The model could not be loaded."
        if self._closed:
            return "The models have been closed."
        return next(filter(None, (one.classifier.unhealthy_reason() for one in self._table)), None)

    def _backlog_s(self) -> float | None:
        """Return the longest backlog in seconds; None before a model is loaded."""
        return max((one.classifier.backlog_s or 0.0 for one in self._table), default=None)

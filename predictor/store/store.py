"""The models of this process, as requests see them."""

from __future__ import annotations

from predictor.engine.served import Served
from predictor.errors import InferenceFailed, NotReady, Overloaded, UnknownModel
from predictor.store.following import Following
from predictor.store.table import Status, Table, failure

LOADING = "The model is loading. Retry in a few seconds."


class Store(Following):
    """The models of one process. Any thread may use it."""

    def resolve(self, name: str | None = None, version: str | None = None, key: str = "") -> Served:
        """Return what answers a request, as :meth:`predictor.store.table.Table.find` does.

        Raises:
            NotReady: nothing is loaded yet, nothing could be loaded, or the model is loading.
            UnknownModel, BadRequest: there is no such model or version, or no default model.
        """
        table, loads = self._ready_table(), {model for model, _ in [*self._loading]}
        if (self._wanted.default if name is None else name) in loads - table.models.keys():
            raise NotReady(LOADING)
        try:
            return table.find(name, version, key)
        except UnknownModel as error:
            if failed := failure(self.statuses(), name or table.default, version):
                raise type(error)(failed) from None
            raise

    @property
    def default(self) -> Served | None:
        """What answers requests that name no model, else the first model; None: nothing can."""
        table = self._table
        if not self.loading.done() or not table.models or self.unhealthy_reason():
            return None
        return table.find(table.default or next(iter(table.models)), None, "")

    def names(self) -> list[str]:
        """Return the names of the models that are served; raise NotReady before."""
        return [*self._ready_table().models]

    def statuses(self) -> list[Status]:
        """Return all versions that are wanted or served, by name and version."""
        ready = {(one.name, one.version): one for one in self._table}
        found = [Status(*key, "READY", "", served) for key, served in ready.items()]
        for key in self._wanted.entries.keys() - self._loaded.keys():
            failed = self._failed.get(key)
            state = "UNAVAILABLE" if failed else "LOADING"
            found.append(Status(*key, state, failed[1] if failed else "", None))
        return sorted(found, key=lambda status: (status.name, status.version))

    def expect_healthy(self) -> None:
        """Raise InferenceFailed if the process must be replaced. Loading is not a failure."""
        if (reason := self.unhealthy_reason()) is not None:
            raise InferenceFailed(reason)

    def expect_ready(self) -> None:
        """Raise a ServiceError if requests would fail now."""
        self.expect_healthy()
        if self.process.draining:
            raise NotReady("This server process is shutting down. Retry: another one answers.")
        if (turns := self.process.decoders.turns).full:
            detail = f"{turns.waiting} images are waiting to be decoded."
            raise Overloaded(detail, self._backlog_s())
        self._ready_table()

    def abandon(self) -> None:
        """Fail all requests in progress and refuse new ones. Used when a model hangs."""
        self.process.draining = True
        self.process.lanes.abandon()

    def close(self) -> None:
        """End the threads of all models. The store is not healthy then."""
        self._closed = True
        self._explainer.close()
        for served in self._table:
            served.classifier.close()

    def _ready_table(self) -> Table:
        self.start()
        if not self.loading.done():
            raise NotReady(LOADING)
        if self.loading.exception() is not None:
            raise NotReady("The model could not be loaded. The server's log has the reason.")
        return self._table

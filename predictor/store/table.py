"""What requests are answered by: one moment of the store, which is replaced as a whole."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from predictor.engine.served import Served
from predictor.errors import BadRequest, UnknownModel, UnknownVersion
from predictor.store.routing import choose
from predictor.store.wanted import NUMBER, Route

VERSION = re.compile(rf"({NUMBER})(?:\.0)?")  # TorchServe's clients write 2 as 2.0


@dataclass(frozen=True, slots=True)
class Status:
    """A version that is wanted or served."""

    name: str
    version: int
    state: str  # READY, LOADING or UNAVAILABLE
    reason: str  # why it is unavailable; else empty
    served: Served | None


def failure(statuses: Iterable[Status], name: str | None, version: str | None) -> str:
    """Return a sentence if this version is wanted but cannot be loaded, else ''. None: any one."""
    for one in statuses:
        is_named = version in (None, f"{one.version}", f"{one.version}.0")
        if one.reason and one.name == name and is_named:
            return f"{name}/{one.version} is to be served, but cannot be loaded. See GET /models."
    return ""


@dataclass(frozen=True, slots=True)
class Model:
    """The versions of a model that are served, and which requests each of them gets."""

    route: Route
    versions: Mapping[int, Served]


@dataclass(frozen=True, slots=True)
class Table:
    """The models that are served, by name."""

    models: Mapping[str, Model] = field(default_factory=dict)
    default: str | None = None  # the model of requests that name none

    def __iter__(self) -> Iterator[Served]:
        """Iterate over all versions of all models."""
        for model in self.models.values():
            yield from model.versions.values()

    def model(self, name: str | None) -> Model:
        """Return the model of this name, or for None the default model.

        Raises:
            UnknownModel: there is no such model, or no model at all.
            BadRequest: there is no default.
        """
        if (name := self.default if name is None else name) is None:
            if not self.models:  # to name one would not help
                raise UnknownModel(self._served())
            raise BadRequest(
                f"Name a model with ?model= (of /invocations: ?model_name=). {self._served()}"
            )
        if (model := self.models.get(name)) is None:
            raise UnknownModel(f"There is no model {name!r}. {self._served()}")
        return model

    def find(self, name: str | None, version: str | None, key: str) -> Served:
        """Return what answers a request: the version that it names, else one by split or default.

        Args:
            name: of the model; None: the default model.
            version: such as ``2`` or ``2.0``; None: requests with the same ``key`` get the same.
            key: who asks, for the split.

        Raises:
            UnknownModel, BadRequest: there is no such model or version, or no default model.
        """
        model = self.model(name)
        if version is None:
            # With the name: else the same clients would get the small part of every split.
            return model.versions[choose(model.route, f"{name or self.default}:{key}")]
        number = VERSION.fullmatch(version)
        if number is None or (served := model.versions.get(int(number[1]))) is None:
            known = " and ".join(map(str, model.versions))
            name = next(iter(model.versions.values())).name
            raise UnknownVersion(f"The model {name!r} has no version {version!r}. It has {known}.")
        return served

    def _served(self) -> str:
        names = " and ".join(map(repr, self.models))
        return f"This server serves {names or 'no model'}."

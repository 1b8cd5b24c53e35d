"""torchvision, without the compiler that classifying never uses.

For one function of its detection operators torchvision imports torch.compile's front end, which
brings SymPy and much of torch.distributed: 1.2 of the 3 seconds that the imports of a start take.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo.utils"


class Deferred(ModuleType):
    """Stands for a module until a function taken from it is called."""

    def __getattr__(self, name: str) -> Any:
        """The function, or one that will fetch and call it."""
        if name.startswith("__"):
            raise AttributeError(name)
        if COMPILER.rpartition(".")[0] in sys.modules:  # somebody imports it in earnest
            return self._real(name)
        return lambda *args, **kwargs: self._real(name)(*args, **kwargs)

    def _real(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


stand_in = sys.modules.setdefault(COMPILER, Deferred(COMPILER))
try:
    import torchvision
finally:
    if sys.modules.get(COMPILER) is stand_in and isinstance(stand_in, Deferred):
        del sys.modules[COMPILER]

__all__ = ["torchvision"]

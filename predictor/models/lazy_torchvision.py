"""Import torchvision without torch.compile.

torchvision imports torch.compile's front end for one function of its detection operators. This
imports SymPy and much of torch.distributed, too, and takes 1.2 of the 3 seconds of all imports.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo.utils"


class Deferred(ModuleType):
    """A placeholder that imports the real module when one of its functions is first called."""

    def __getattr__(self, name: str) -> Any:
        """Return the function, or a wrapper that imports the module and then calls the function."""
        if name.startswith("__"):
            raise AttributeError(name)
        if COMPILER.rpartition(".")[0] in sys.modules:  # other code imports the real module now
            return self._real(name)
        return lambda *args, **kwargs: self._real(name)(*args, **kwargs)

    def _real(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


placeholder = sys.modules.setdefault(COMPILER, Deferred(COMPILER))
try:
    import torchvision
finally:
    if sys.modules.get(COMPILER) is placeholder and isinstance(placeholder, Deferred):
        del sys.modules[COMPILER]

__all__ = ["torchvision"]

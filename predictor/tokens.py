"""The access tokens in a file, which is read again whenever it changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from predictor.errors import SettingsError
from predictor.setting_parsers import read_tokens

log = logging.getLogger(__name__)


class TokensFile:
    """The tokens that a file had when it was last read without an error."""

    def __init__(self, path: str) -> None:
        """Read the file; raise ValueError if it is not valid."""
        self.path = Path(path).expanduser()
        self._tokens = read_tokens(self.path)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the tokens."""
        return iter(self._tokens)

    def paths(self) -> list[Path]:
        """Return the files to watch."""
        return [self.path]

    def follow(self) -> None:
        """Read the file again. If it is not valid, keep the tokens and raise SettingsError."""
        try:
            tokens = read_tokens(self.path)
        except ValueError as error:
            raise SettingsError(
                f"The valid tokens stay the same. The tokens file '{self.path}': {error}"
            ) from None
        if tokens != self._tokens:
            found = len(tokens)
            log.info("The tokens file '%s' has changed. Valid tokens in it: %d", self.path, found)
        self._tokens = tokens

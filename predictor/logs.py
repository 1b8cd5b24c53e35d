"""The log's format: a line a record, for people on a terminal and as JSON for programs.

Who owns the process configures it: gunicorn.conf.py and app.py, never an import.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

log = logging.getLogger(__name__)


def configure(
    log_format: str, handlers: Sequence[logging.Handler] = (), level: int = logging.INFO
) -> None:
    """Have every logger, warning and dying thread of this process write in one format.

    Args:
        log_format: ``text``, ``json``, or ``auto``: text where it goes to a terminal.
        handlers: where it goes; standard error when not given.
        level: the least that is written.
    """
    handlers = handlers or [logging.StreamHandler()]
    for handler in handlers:
        terminal = isinstance(handler, logging.StreamHandler) and handler.stream.isatty()
        text = log_format == "text" or (log_format == "auto" and terminal)
        handler.setFormatter(TextFormatter() if text else JSONFormatter())
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(True)
    threading.excepthook = _log_end_of_thread


def is_text() -> bool:
    """Return whether the log is written for people, so that it shows a record's ``block``."""
    return any(isinstance(h.formatter, TextFormatter) for h in logging.getLogger().handlers)


class TextFormatter(logging.Formatter):
    """For people. No text of a client's can begin a line: it is escaped, tracebacks are indented.

    A record's ``block``, which must be our own words, is written as it is.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback's below it."""
        if block := getattr(record, "block", None):
            return str(block)
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        head = f"{time} [{record.process}] {record.levelname}"
        lines = [f"{head} {_printable(record.getMessage())}"]
        lines += [f"    {_printable(line)}" for line in _traceback(self, record).splitlines()]
        return "\n".join(lines)


class JSONFormatter(logging.Formatter):
    """For programs: an object a line, pure ASCII. A record's named arguments become members."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if isinstance(record.args, Mapping):
            line = {**line, **record.args, **line}
        if traceback := _traceback(self, record):
            line["traceback"] = traceback
        return json.dumps(line, default=str)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return record.stack_info or ""


def _printable(text: str) -> str:
    """The text with everything escaped that moves the cursor, ends a line or turns it around."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:
        return
    assert ended.exc_value is not None
    name = ended.thread.name if ended.thread else "?"
    log.critical("Thread %s has ended with an error", name, exc_info=ended.exc_value)

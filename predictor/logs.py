"""The format of the log: one line for each record, as text for people or as JSON for programs.

The server and the development server call :func:`configure`. Importing this module changes nothing.
"""

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
    """Write all log records, warnings and uncaught exceptions of threads in one format.

    Args:
        log_format: ``text``, ``json``, or ``auto``: text on a terminal, JSON elsewhere.
        handlers: the outputs of the log; standard error if empty.
        level: records below this level are dropped.
    """
    handlers = handlers or [logging.StreamHandler()]
    for handler in handlers:
        terminal = isinstance(handler, logging.StreamHandler) and handler.stream.isatty()
        text = log_format == "text" or (log_format == "auto" and terminal)
        handler.setFormatter(TextFormatter() if text else JSONFormatter())
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(True)
    threading.excepthook = _log_failed_thread


def is_text() -> bool:
    """Return whether the log is text for people. Only such a log shows a record's ``block``."""
    return any(isinstance(h.formatter, TextFormatter) for h in logging.getLogger().handlers)


class TextFormatter(logging.Formatter):
    """Formats for people. A client's text cannot forge a line of the log.

    Control characters in messages are escaped, and tracebacks are indented. If a record has
    an attribute ``block``, that text is written unchanged instead of the line. It must not contain
    text that a client sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, followed by the indented traceback if there is one."""
        if block := getattr(record, "block", None):
            return str(block)
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(" ", "milliseconds")
        head = f"{time} [{record.process}] {record.levelname}"
        lines = [f"{head} {_printable(record.getMessage())}"]
        lines += [f"    {_printable(line)}" for line in _traceback(self, record).splitlines()]
        return "\n".join(lines)


class JSONFormatter(logging.Formatter):
    """Formats for programs: one ASCII JSON object on each line.

    If a record's arguments are a mapping, they become members of the object.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
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
    """Escape characters that end a line, move the cursor or reverse the writing direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _log_failed_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit:
        return
    assert ended.exc_value is not None
    name = ended.thread.name if ended.thread else "?"
    log.critical("Thread %s has ended with an error", name, exc_info=ended.exc_value)

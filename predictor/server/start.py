"""What ``gunicorn.conf.py`` reads from the machine and the environment."""

import glob
import os
import sys
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from predictor import logs
from predictor.server.address import host_from_env
from predictor.settings import Settings, current_settings, unquoted


def shared_memory() -> str | None:
    """Return the folder whose files are in memory, or None if it is not writable."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def visible_gpus() -> list[str]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES names them.

    This does not call CUDA, because CUDA must not be initialised before the fork.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [gpu.strip() for gpu in chosen.split(",") if gpu.strip() not in ("", "-1")]
    return [str(index) for index, _ in enumerate(glob.glob("/dev/nvidia[0-9]*"))]


def number_from_env(name: str, default: int, least: int, most: int) -> int:
    """Return an integer from the environment. Exit with a message if the value is invalid."""
    text = unquoted(os.environ.get(name, "")) or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        sys.exit(
            f"The server cannot start. {name}={text!r} is not a whole number between {least} and"
            f" {most}."
        )
    return int(text)


def bind_addresses(settings: Settings) -> list[str]:
    """Return HOST and PORT as gunicorn's ``bind``, and the management API's address if it has one.

    The first address is that of the page and of predictions.
    """
    main = host_from_env(), number_from_env("PORT", 5000, 0, 65535)
    both = [main, settings.management_bind] if settings.management_bind else [main]
    return [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in both]


class SameFormatLogger(Logger):  # type: ignore[misc]
    """Writes the app's log where gunicorn writes its own (--error-logfile), in one format.

    This replaces gunicorn's logconfig_dict, which makes gunicorn prepare an access line for every
    request.
    """

    def setup(self, cfg: Any) -> None:
        """Configure the handlers. gunicorn calls this method at the start and at each reload."""
        super().setup(cfg)
        log_format = current_settings().log_format
        logs.configure(log_format, self.error_log.handlers, self.loglevel)

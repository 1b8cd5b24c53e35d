"""What gunicorn's hooks are called with."""

import os
from types import SimpleNamespace

import pytest


def master(workers=1, **options):
    """What the hooks use of gunicorn's Arbiter."""
    options = {
        "preload_app": False,
        "http_protocols": ["h1"],
        "is_ssl": False,
        "address": [],
        "bind": [],
        "uid": os.geteuid(),
        "gid": os.getegid(),
    } | options
    return SimpleNamespace(
        cfg=SimpleNamespace(**options),
        WORKERS={},
        num_workers=workers,
        worker_age=0,
        reload=lambda: None,
        manage_workers=lambda: None,
        log=SimpleNamespace(error=pytest.fail, warning=pytest.fail, info=lambda _: None),
    )


def worker(slot=0):
    return SimpleNamespace(slot=slot, pid=1)

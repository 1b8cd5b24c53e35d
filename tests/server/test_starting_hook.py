"""What the master checks and prepares when it starts."""

import gc
import os
import socket

import pytest

from fake_master import master
from predictor.server import hooks
from predictor.server.start import bind_addresses
from predictor.settings import Settings, current_settings, hand_on

pytestmark = pytest.mark.usefixtures("start_of_the_master")


def test_preloading_is_refused():
    with pytest.raises(SystemExit, match="--preload"):
        hooks.on_starting(master(preload_app=True))


def test_a_taken_port_is_refused_with_advice():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(SystemExit, match=f"Port {address[1]}.*PORT=5001"):
            hooks.on_starting(master(address=[address]))


@pytest.mark.parametrize(("host", "error"), [("127.0.0.1", "is taken"), ("192.0.2.1", "Cannot")])
def test_an_address_of_the_management_api_is_refused_by_its_setting(host, error):
    os.environ |= {"HOST": "127.0.0.1", "PORT": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        own = host, taken.getsockname()[1]
        hand_on(Settings(management_bind=own))
        bind = bind_addresses(current_settings())
        with pytest.raises(SystemExit, match=f"{error}.* Set PREDICTOR_MANAGEMENT_BIND to an"):
            hooks.on_starting(master(address=[("127.0.0.1", 0), own], bind=bind))


def test_the_management_api_cannot_have_the_address_of_the_page():
    os.environ |= {"HOST": "127.0.0.1", "PORT": "8497"}
    hand_on(Settings(management_bind=("127.0.0.1", 8497)))
    bind = bind_addresses(current_settings())
    with pytest.raises(SystemExit, match="^PREDICTOR_MANAGEMENT_BIND is 127.0.0.1:8497, as are"):
        hooks.on_starting(master(bind=bind))


def test_a_free_port_and_a_unix_socket_are_accepted():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    hooks.on_starting(master(address=[address, "unix:/run/predictor.sock"]))


@pytest.mark.parametrize("name", ["GUNICORN_FD", "LISTEN_FDS"])
def test_a_listening_socket_that_is_passed_on_is_accepted(name):
    os.environ[name] = "3"
    with socket.create_server(("127.0.0.1", 0)) as passed_on:
        hooks.on_starting(master(address=[passed_on.getsockname()]))


def test_what_workers_inherit_is_not_scanned_for_garbage():
    gc.unfreeze()
    hooks.on_starting(master())
    assert gc.get_freeze_count()
    gc.unfreeze()

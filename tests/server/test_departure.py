"""What the kernel keeps of a closed connection."""

import asyncio
import socket
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import psutil
import pytest

from predictor.errors import ClientGone
from predictor.server import departure
from waiting import wait_until


def kernel_keeps(client):
    """Whether the other end of a client's connection still has bytes for it."""
    found = psutil.net_connections("tcp4")
    return any(c.raddr == client.getsockname() and c.status == "FIN_WAIT1" for c in found)


def test_of_many_clients_that_have_closed_the_first_count_as_gone():
    """Or 80 in a second, which close and are not answered, would hold all slots."""
    half_open, most = {}, departure.MAX_HALF_OPEN
    clients = [departure.Departure(None, object(), half_open) for _ in range(most + 3)]
    for client in clients:
        client.wait_for_answer(True)
    for client in clients[:-1]:
        client.begin()
        client.begin()
    over = [client.is_over() for client in clients]
    assert over == [True, True, *[False] * (most + 1)]
    clients[5].wait_for_answer(False)  # answered
    clients[-1].begin()
    assert not clients[2].is_over()
    clients[6].end()
    assert len(half_open) == most - 1


def test_clients_that_wait_for_no_answer_take_no_place_among_those_that_have_closed():
    half_open = {}
    for pending in (True, *[False] * 2 * departure.MAX_HALF_OPEN):
        client = departure.Departure(None, object(), half_open)
        client.wait_for_answer(pending)
        client.begin()
    assert len(half_open) == 1
    client.wait_for_answer(True)  # its request has been received
    assert len(half_open) == 2
    client.end()
    client.wait_for_answer(True)  # it was lost while its request was read
    assert len(half_open) == 1


@contextmanager
def half_closed(count):
    """The departures of clients with HTTP/1.1, one of which has closed its sending side."""
    written, half_open = [], {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with client, listener.accept()[0] as accepted:
            client.shutdown(socket.SHUT_WR)
            transport = SimpleNamespace(
                get_extra_info=lambda _: accepted, is_closing=lambda: False, write=written.append
            )
            clients = [departure.Departure(None, transport, half_open) for _ in range(count)]
            for one in clients:
                one.can_probe = True
                one.wait_for_answer(True)
                one.begin()
            yield clients, written


def test_of_many_clients_that_have_closed_the_first_is_asked_and_kept_if_it_reads():
    with half_closed(departure.MAX_HALF_OPEN + 1) as (clients, written):
        assert written == [departure.PROBE]
        assert clients[0]._probed
        assert not any(one.is_over() for one in clients)


@pytest.mark.parametrize("crowd", [0, departure.MAX_HALF_OPEN - 1])
@pytest.mark.parametrize("reads", [True, False])
def test_beside_many_clients_that_have_closed_one_is_asked_before_any_work(crowd, reads):
    with half_closed(1 + crowd) as (clients, written):
        expected = nullcontext()
        if not reads:
            clients[-1]._still_reads = lambda: False  # the kernel of the client has answered
            expected = pytest.raises(ClientGone) if crowd else expected
        with expected:
            asyncio.run(clients[-1].check())
        assert written == [departure.PROBE] * bool(crowd)


def test_a_client_is_not_given_up_between_two_looks_at_the_clock(monkeypatch):
    times = iter([99.9, 100.1])
    one = departure.Departure(None, object(), {})
    one.can_probe, one._since = True, 100.0
    monkeypatch.setattr(departure, "monotonic", lambda: next(times))
    assert not one.is_over()


def test_what_a_client_does_not_read_is_dropped_after_a_while(monkeypatch):
    monkeypatch.setattr(departure, "UNREAD_S", 1)

    async def send_and_close(accepted):
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        transport.write(bytes(4_000_000))
        departure.abandon(transport)
        await asyncio.sleep(0)

    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(listener.getsockname())
        asyncio.run(send_and_close(listener.accept()[0]))
        assert kernel_keeps(client)
        wait_until(lambda: not kernel_keeps(client))

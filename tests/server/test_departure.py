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


class Loop:
    """Keeps the planned calls until the test asks for them."""

    def __init__(self):
        self.planned = []

    def call_later(self, delay_s, step, *args):
        self.planned.append((delay_s, handle := asyncio.Handle(step, args, self)))
        return handle

    def go_on(self):
        """Take the planned steps; return their delays."""
        planned, self.planned = self.planned, []
        steps = [(delay_s, handle) for delay_s, handle in planned if not handle.cancelled()]
        for _, handle in steps:
            handle._run()
        return [delay_s for delay_s, _ in steps]

    def get_debug(self):
        return False


def make_client(loop, half_open, transport=None):
    """A client whose request waits for an answer."""
    client = departure.Departure(loop, transport or object(), half_open)
    client.wait_for_answer(True)
    return client


def left(clients):
    return [client.left.done() for client in clients]


@pytest.mark.parametrize("free_slots", [64, 0])
def test_of_many_clients_that_have_closed_the_first_count_as_gone(free_slots):
    """Or 80 in a second, which close and are not answered, would hold all slots."""
    half_open, most = departure.HalfOpen(lambda: free_slots), departure.MAX_HALF_OPEN
    clients = [make_client(Loop(), half_open) for _ in range(most + 3)]
    for client in clients[:-1]:
        client.begin()
        client.begin()
    assert left(clients) == [True, True, *[False] * (most + 1)]
    clients[-2].wait_for_answer(False)  # answered
    clients[-1].begin()
    assert not clients[2].left.done()
    clients[2].end()
    assert len(half_open) == most - 1


def test_when_slots_become_short_fewer_clients_may_have_closed():
    with half_closed(5) as (clients, written, _):
        half_open = clients[0]._half_open
        clients[1].can_probe = False
        half_open._free_slots = lambda: 8
        for _ in range(3):
            asyncio.run(make_client(Loop(), half_open).check())  # before another takes a slot
        asked = [clients[number] for number in (0, 2, 3)]
        assert [*half_open] == [clients[1], clients[4], *asked]
        assert not any(left(clients))
        assert written == [departure.PROBE] * 3


def test_clients_that_cannot_be_asked_are_not_given_up_for_those_that_can():
    with half_closed(2 * departure.MAX_HALF_OPEN) as (clients, _, _):
        mute = [make_client(Loop(), clients[0]._half_open) for _ in range(departure.MAX_HALF_OPEN)]
        for client in mute:
            client.begin()
        for _ in range(50):
            clients[0]._half_open.thin_out()
        assert not any(left([*mute, *clients]))


def test_a_client_that_leaves_after_it_was_asked_is_asked_again_when_others_come():
    """It has closed its sending side already: nothing tells the server."""
    with half_closed(1) as ([one], written, client):
        one._half_open._free_slots = lambda: 0
        one._half_open.thin_out()
        assert client.recv(99) == departure.PROBE
        client.close()
        one._loop.go_on()
        assert not one.left.done()
        asyncio.run(make_client(Loop(), one._half_open).check())
        one._loop.go_on()
        assert one.left.done()
        assert written == [departure.PROBE] * 2


def test_clients_that_wait_for_no_answer_take_no_place_among_those_that_have_closed():
    half_open = departure.HalfOpen(lambda: 64)
    for pending in (True, *[False] * 2 * departure.MAX_HALF_OPEN):
        client = departure.Departure(Loop(), object(), half_open)
        client.wait_for_answer(pending)
        client.begin()
    assert len(half_open) == 1
    client.wait_for_answer(True)  # its request has been received
    assert len(half_open) == 2
    client.end()
    client.wait_for_answer(True)  # it was lost while its request was read
    assert len(half_open) == 1


@contextmanager
def half_closed(count, version=1.1):
    """The departures of clients, all on a connection whose client has closed its sending side."""
    written, half_open, loop = [], departure.HalfOpen(lambda: 64), Loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        with client, listener.accept()[0] as accepted:
            client.shutdown(socket.SHUT_WR)

            def write(data):
                written.append(data)
                accepted.sendall(data)

            transport = SimpleNamespace(
                get_extra_info=lambda _: accepted, is_closing=lambda: False, write=write
            )
            clients = [make_client(loop, half_open, transport) for _ in range(count)]
            for one in clients:
                one.can_probe = version > 1.0
                one.begin()
            yield clients, written, client


def test_of_many_clients_that_have_closed_the_first_is_asked_and_kept_if_it_reads():
    with half_closed(departure.MAX_HALF_OPEN + 1) as (clients, written, _):
        assert written == [departure.PROBE]
        assert next(iter(clients[0]._half_open)) is clients[1]  # the next to be asked
        assert not any(left(clients))


def test_a_client_that_has_closed_is_asked_after_a_while_and_leaves_only_with_a_reset():
    with half_closed(1) as ([one], written, client):
        assert one._loop.go_on() == [departure.HALF_OPEN_S]
        assert written == [departure.PROBE]
        waits = [one._loop.go_on()[0] for _ in range(9)]
        assert waits[0] == departure.FIRST_LOOK_S
        assert waits[-1] == departure.LOOK_S
        one.wait_for_answer(False)  # answered; another request follows
        assert one._loop.go_on() == []
        one.wait_for_answer(True)
        one._loop.go_on()
        assert written == [departure.PROBE] * 2
        assert not one.left.done()
        departure.reset(SimpleNamespace(get_extra_info=lambda _: client, abort=client.close))
        one._loop.go_on()
        assert one.left.done()


def test_a_client_without_interim_responses_has_left_a_while_after_it_has_closed():
    with half_closed(1, version=1.0) as ([one], written, _):
        assert not one.left.done()
        assert one._loop.go_on() == [departure.HALF_OPEN_S]
        assert one.left.done()
        assert written == []


@pytest.mark.parametrize("crowd", [0, departure.MAX_HALF_OPEN - 1])
@pytest.mark.parametrize("reads", [True, False])
def test_beside_many_clients_that_have_closed_one_is_asked_before_any_work(crowd, reads):
    with half_closed(1 + crowd) as (clients, written, _):
        expected = nullcontext()
        if not reads:
            clients[-1]._still_reads = lambda: False  # the kernel of the client has answered
            expected = pytest.raises(ClientGone) if crowd else expected
        with expected:
            asyncio.run(clients[-1].check())
        assert written == [departure.PROBE] * bool(crowd)


def test_a_client_that_is_not_on_tcp_has_left_when_its_connection_is_lost():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        transport = SimpleNamespace(
            get_extra_info=lambda _: ours, is_closing=lambda: False, write=ours.sendall
        )
        one = make_client(Loop(), departure.HalfOpen(lambda: 64), transport)
        one.can_probe = True
        theirs.shutdown(socket.SHUT_WR)
        one.begin()
        for _ in range(5):
            one._loop.go_on()
        assert theirs.recv(99) == departure.PROBE
        assert not one.left.done()
        one.end()
        assert one.left.done()


def test_client_whose_tls_connection_is_lost_has_left():
    transport = SimpleNamespace(
        get_extra_info=lambda _: None, is_closing=lambda: False, write=lambda _: None
    )  # without a socket
    one = make_client(Loop(), departure.HalfOpen(lambda: 64), transport)
    one.can_probe = True
    one.begin()
    assert not one.left.done()
    one._loop.go_on()
    assert one.left.done()


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

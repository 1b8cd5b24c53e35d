"""What the kernel keeps of a closed connection."""

import asyncio
import socket
from types import SimpleNamespace

import psutil

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
    over = [client.is_over(can_probe=False) for client in clients]
    assert over == [True, True, *[False] * (most + 1)]
    clients[5].wait_for_answer(False)  # answered
    clients[-1].begin()
    assert not clients[2].is_over(can_probe=False)
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


def test_of_many_clients_that_have_closed_one_that_can_be_probed_is_kept_if_it_reads():
    scheduled = []
    loop = SimpleNamespace(call_soon_threadsafe=scheduled.append)
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    with listener, client, listener.accept()[0] as accepted:
        client.shutdown(socket.SHUT_WR)
        transport = SimpleNamespace(get_extra_info=lambda _: accepted)
        half_open = {}
        clients = [
            departure.Departure(loop, transport, half_open)
            for _ in range(departure.MAX_HALF_OPEN + 1)
        ]
        for one in clients:
            one.wait_for_answer(True)
            one.begin()
        assert not any(one.is_over(can_probe=True) for one in clients)
        assert scheduled == [clients[0]._probe]


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

"""What the kernel keeps of a closed connection."""

import asyncio
import socket

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
    for client in clients[:-1]:
        client.begin()
        client.begin()
    over = [client.is_over(can_probe=False) for client in clients]
    assert over == [True, True, *[False] * (most + 1)]
    clients[5].end()  # answered
    clients[-1].begin()
    assert not clients[2].is_over(can_probe=False)


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

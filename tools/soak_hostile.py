"""The soak run's clients that try to hold the server: slow readers, dribblers, greedy photos."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable

from tools.soak_clients import LEFT, Answer, Clients, answer_of, expects, is_healthy, request

LARGE = b"GET /docs/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: soak\r\n\r\n"  # 1.7 MB
# A lossless WebP of 50 megapixels, in base64. Its codes have one symbol each: no bits per pixel.
GREEDY = "UklGRhYAAABXRUJQVlA4TAoAAAAvnpvnBoiIiAgAAA=="


class HostileClients(Clients):
    """All kinds of clients, the hostile ones among them."""

    @property
    def kinds(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What a client may do."""
        return (*super().kinds, self.reads_slowly, self.dribbles, self.greedy)

    async def reads_slowly(self) -> None:
        """Send three requests for a large file. Read one answer late, and disconnect."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(LARGE * 3)
        await asyncio.sleep(self._random.uniform(0, 2))
        await self.ledger.account("reads slowly", answer_of(reader), is_healthy)
        writer.transport.abort()
        self.ledger.sent["reads slowly"] += 2
        self.ledger.outcomes["reads slowly", LEFT] += 2

    async def dribbles(self) -> None:
        """Send a part of a request, and then a byte now and then until the server refuses."""
        photo, _ = self._random.choice(self._known)
        await self.ledger.account("dribbles", self._dribble(request(photo)), expects(408))

    async def greedy(self) -> None:
        """Send small files with very many pixels. Half of these clients disconnect at once."""
        data = request(json.dumps({"images": [GREEDY] * 4}).encode(), "application/json")
        send = self._random.choice((self._ask, self._leave))
        await self.ledger.account("greedy", send(data), expects(413, or_right=True))

    async def _dribble(self, data: bytes) -> Answer:
        reader, writer = await self._open()
        answer = asyncio.create_task(answer_of(reader))
        sent = self._random.randrange(1, 200)  # within the headers or the body
        writer.write(data[:sent])
        while not answer.done():
            writer.write(data[sent : sent + 1])
            sent += 1
            await asyncio.wait([answer], timeout=0.2)
        writer.close()
        return await answer

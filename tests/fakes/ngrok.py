"""A fake of ngrok's SDK: its tunnel forwards another port of this machine to the app."""

from __future__ import annotations

import asyncio
import socket
import socketserver
import threading
from contextlib import suppress

tunnels = {}
killed = []


class Listener:
    def __init__(self, url):
        self._url = url

    def url(self):
        return self._url


class Forwarder(socketserver.ThreadingTCPServer):
    """Opens a connection to the target for each client, and passes bytes both ways."""

    daemon_threads = True

    def __init__(self, target):
        self.target = target
        super().__init__(("127.0.0.1", 0), Connection)


class Connection(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(self.server.target) as app:
            answers = threading.Thread(target=pass_on, args=(app, self.request))
            answers.start()
            pass_on(self.request, app)
            answers.join()


def pass_on(source, sink):
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def forward(addr, authtoken):
    """Like the real one, return a task in an event loop, and raise ValueError for all errors."""
    if authtoken == "revoked":
        text = f"The authtoken was revoked. Your authtoken: {authtoken}"
        raise ValueError("failed to connect session", text, "ERR_NGROK_107")
    with suppress(RuntimeError):
        return asyncio.get_running_loop().create_task(asyncio.sleep(0))
    host, port = addr.removeprefix("http://").split(":")
    forwarder = Forwarder((host, int(port)))
    url = f"http://127.0.0.1:{forwarder.server_address[1]}"
    threading.Thread(target=forwarder.serve_forever, args=(0.05,), daemon=True).start()
    tunnels[url] = forwarder
    return Listener(url)


def disconnect(url):
    forwarder = tunnels.pop(url)
    forwarder.shutdown()
    forwarder.server_close()


def get_listeners():
    return list(tunnels)


def kill():
    killed.append(True)

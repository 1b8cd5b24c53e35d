"""requests, httpx and aiohttp: ``python_clients.py URL FILE…``.

It prints each response's status and JSON.
"""

import asyncio
import json
import sys

import aiohttp
import httpx
import requests


def pieces(file):
    """A body of unknown length: it is sent in chunks."""
    while piece := file.read(65536):
        yield piece


async def aiohttp_post(url, data):
    async with aiohttp.ClientSession() as session, session.post(url, data=data) as response:
        return httpx.Response(response.status, text=await response.text())


WAYS = {
    "requests form": lambda url, file: requests.post(url, files={"file": file}),
    "requests body": lambda url, file: requests.post(url, data=file),
    "requests chunks": lambda url, file: requests.post(url, data=pieces(file)),
    "httpx form": lambda url, file: httpx.post(url, files={"image": file}, timeout=60),
    "httpx body": lambda url, file: httpx.post(url, content=file.read(), timeout=60),
    "httpx chunks": lambda url, file: httpx.post(url, content=pieces(file), timeout=60),
    "aiohttp form": lambda url, file: asyncio.run(aiohttp_post(url, {"file": file})),
    "aiohttp body": lambda url, file: asyncio.run(aiohttp_post(url, file)),
}


def main():
    _, url, *names = sys.argv
    answers = {}
    for way, send in WAYS.items():
        for name in names:
            with open(name, "rb") as file:
                response = send(url, file)
            answers.setdefault(way, []).append([response.status_code, response.json()])
    print(json.dumps(answers))


if __name__ == "__main__":
    main()

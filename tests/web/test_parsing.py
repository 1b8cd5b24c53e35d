"""Bodies are parsed by one thread at a time, because parsing holds Python's lock."""

import base64
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from queue import SimpleQueue
from threading import Event

import pytest

from leaving import gone
from pictures import picture
from predictor.environ import LEFT
from predictor.web.choosing import choose_json, choose_parts

BLUE = picture("blue")


def form():
    return {"data": {"file": (BytesIO(BLUE), "a.png")}}


def as_json():
    return {"json": {"instances": [base64.b64encode(BLUE).decode()]}}


@pytest.mark.parametrize(
    ("name", "choose", "held", "other"),
    [("choose_parts", choose_parts, form, as_json), ("choose_json", choose_json, as_json, form)],
)
def test_one_form_and_one_json_is_parsed_at_a_time(app, monkeypatch, name, choose, held, other):
    """While 60 threads parsed a form each, the event loop could hardly run."""
    begun, go = SimpleQueue(), Event()

    def slow(*arguments):
        begun.put(True)
        assert go.wait(10)
        return choose(*arguments)

    def post(left=None, **body):
        options = {"environ_overrides": {LEFT: left}} if left else {}
        return app.test_client().post("/predict", **body, **options)

    monkeypatch.setattr(f"predictor.web.uploads.{name}", slow)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(post, **held())
        begun.get(timeout=10)
        others = [pool.submit(post, **held()), pool.submit(post, gone().left, **held())]
        for _ in range(3):  # raw photos and the other kind do not wait
            assert post(data=BLUE).status_code == post(**other()).status_code == 200
        assert begun.empty()
        go.set()
        assert first.result().status_code == others[0].result().status_code == 200
        assert others[1].result().json["code"] == "client-gone"
        assert begun.qsize() == 1  # nothing was parsed for the client that has left

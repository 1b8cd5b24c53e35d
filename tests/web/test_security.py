import io
import socket

import pytest

from pictures import picture
from web.access import OTHER, TOKEN, basic, bearer

OPEN = {"health.healthz", "health.readyz", "open_inference.live", "open_inference.ready"}
OPEN |= {"torchserve.ping"}


# Tokens


@pytest.mark.parametrize(
    "headers",
    [bearer(TOKEN), bearer(OTHER), {"Authorization": f"bearer {TOKEN}"}, basic(f"me:{TOKEN}"),
     basic(f":{OTHER}")],
    ids=["bearer", "another", "small letters", "password", "password without a name"],
)  # fmt: skip
def test_request_with_a_valid_token_is_answered(serve, headers):
    client = serve(tokens=f"{TOKEN},{OTHER}")
    assert client.post("/predict", data=picture(), headers=headers).status_code == 200
    assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, bearer(""), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), bearer(f"{TOKEN},{OTHER}"),
     bearer("ÿ" * 16), basic(TOKEN), basic(f"{TOKEN}:"), basic("me:Ω"), {"Authorization": TOKEN},
     {"Authorization": f"Digest {TOKEN}"}, {"Authorization": "Basic =="},
     {"Authorization": 'Bearer a="b"'}, {"X-Api-Key": TOKEN},
     {"Authorization": "Basic \xff"}],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/predict"), ("PUT", "/predict/"), ("GET", "/"), ("POST", "/"), ("OPTIONS", "/"),
     ("GET", "/static/page.js"), ("GET", "/nothing"), ("GET", f"/?token={TOKEN}")],
)  # fmt: skip
def test_request_without_a_valid_token_is_401(serve, method, path, headers):
    response = serve(tokens=f"{TOKEN},{OTHER}").open(path, method=method, headers=headers)
    assert response.status_code == 401
    assert response.mimetype == "application/problem+json"
    reason = "is not known" if "Authorization" in headers else "is required"
    assert reason in response.json["detail"]
    assert "Authorization: Bearer" in response.json["detail"]
    assert response.headers.getlist("WWW-Authenticate") == [
        'Bearer realm="the token is the password"',
        'Basic realm="the token is the password"',
    ]


@pytest.mark.parametrize("header", ["Digest " + 'a="1",' * 9000, "Bearer " + 'a="1",' * 9000])
def test_a_long_authorization_is_not_parsed(serve, monkeypatch, header):
    """It would stop the event loop for 25 ms."""
    monkeypatch.setattr("werkzeug.datastructures.auth.parse_dict_header", pytest.fail)
    assert serve(tokens=TOKEN).get("/", headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(serve, path):
    assert serve(tokens=TOKEN, rate_limit="1/day").get(path).status_code == 200
    assert serve(tokens=TOKEN).get(path, headers=bearer("wrong")).status_code == 200


def test_every_route_but_the_listed_probes_needs_a_token(serve):
    client = serve(tokens=TOKEN)
    rules = client.application.url_map.iter_rules()
    closed = {rule.endpoint for rule in rules} - OPEN
    assert len(closed) >= 4
    for rule in client.application.url_map.iter_rules():
        method = max((rule.methods or set()) - {"HEAD"}, key=lambda name: name != "OPTIONS")
        path = rule.rule.replace("<path:filename>", "style.css")
        status = client.open(path, method=method).status_code
        assert (rule.rule, status == 401) == (rule.rule, rule.endpoint in closed)


class Unreadable(io.BytesIO):
    def read(self, *_args):
        pytest.fail("The body was read.")

    readinto = readline = read


@pytest.mark.parametrize("path", ["/predict", "/"])
def test_body_of_a_refused_request_is_not_read(serve, path):
    client = serve(tokens=TOKEN, rate_limit="1/day")
    statuses = [
        client.post(
            path, input_stream=Unreadable(bytes(1000)), content_type="image/png"
        ).status_code
        for _ in range(2)
    ]
    assert statuses == [401, 429]


def test_form_without_javascript_can_use_basic_auth(serve):
    client = serve(tokens=TOKEN)
    form = {"file": (io.BytesIO(picture("blue")), "photo.png")}
    assert client.post("/", data=form).status_code == 401
    form = {"file": (io.BytesIO(picture("blue")), "photo.png")}
    response = client.post("/", data=form, headers=basic(f"me:{TOKEN}"))
    assert "blue thing" in response.text


def test_tokens_from_setting_and_file_are_both_valid(serve, tmp_path):
    (tmp_path / "tokens").write_text(OTHER)
    client = serve(tokens=TOKEN, tokens_file=tmp_path / "tokens")
    assert client.get("/", headers=bearer(TOKEN)).status_code == 200
    assert client.get("/", headers=bearer(OTHER)).status_code == 200


# What every answer carries


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/static/page.js", 200),
        ("GET", "/healthz", 200),
        ("POST", "/predict", 200),
        ("GET", "/predict", 405),
        ("GET", "/nothing", 404),
        ("GET", "/static/../app.py", 404),
        ("GET", "/fails", 500),
    ],
)
def test_every_response_has_security_headers(serve, method, path, status):
    client = serve()
    client.application.add_url_rule("/fails", view_func=lambda: 1 / 0)
    with client.open(path, method=method, data=picture() if method == "POST" else None) as response:
        assert response.status_code == status
        headers = response.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Permissions-Policy"].startswith("camera=(self)")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == ("no-cache" if path.endswith(".js") else "no-store")


@pytest.mark.parametrize("debug", [False, True])
def test_no_response_has_a_traceback_even_in_debug_mode(serve, debug):
    client = serve()
    client.application.debug = debug
    client.application.add_url_rule("/fails", view_func=lambda: 1 / 0)
    response = client.get("/fails")
    assert response.status_code == 500
    assert not [word for word in ("Traceback", "ZeroDivision", ".py") if word in response.text]


# Addresses


@pytest.mark.parametrize("path", ["/predict", "/"])
@pytest.mark.parametrize("kind", ["json", "data"])
@pytest.mark.parametrize("field", ["url", "image", "images", "file", "image_url"])
def test_url_in_place_of_a_photo_is_not_fetched(serve, path, kind, field):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/photo.png"
        value = [address] if (field, kind) == ("images", "json") else address
        response = serve().post(path, **{kind: {field: value}})
        answer = response.json["results"][0]["error"] if "results" in response.text else None
        assert (answer["status"] if answer else response.status_code) == 400
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("parameter", ["url", "image", "path"])
def test_url_in_the_query_is_not_fetched(serve, parameter):
    response = serve().post(f"/predict?{parameter}=file:///etc/hostname")
    assert response.status_code == 400
    assert "body is empty" in response.json["detail"]


# What is sent to us stays what it is


def test_client_text_is_escaped_on_the_page(serve):
    field = "<script>alert(1)</script>"
    page = serve().post("/", data={field: "x"}, content_type="multipart/form-data").text
    assert "&lt;script&gt;alert(1)" in page
    assert field not in page


@pytest.mark.parametrize("path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "..\\app.py", "%00"])
def test_no_path_leads_out_of_the_static_files(serve, path):
    assert serve().get(f"/static/{path}").status_code == 404


def test_photo_is_never_written_to_disk(serve, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="photo.png"\r\n\r\n'
    form = head + picture() + bytes(1_000_000) + b"\r\n--b--\r\n"
    kind = "multipart/form-data; boundary=b"
    assert serve().post("/predict", data=form, content_type=kind).status_code == 200

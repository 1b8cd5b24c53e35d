import base64
import io
import socket

import pytest

from pictures import picture
from predictor.settings import Settings

OPEN = {"health.healthz", "health.readyz", "open_inference.live", "open_inference.ready"}
OPEN |= {"torchserve.ping"}
TOKEN, OTHER = "correct-horse-battery", "staple.0123456789=="
OURS = "https://example.org"


@pytest.fixture
def serve(make_client):
    """A client of an app with these settings, written as an operator writes them."""

    def build(**settings):
        environ = {f"PREDICTOR_{name.upper()}": str(text) for name, text in settings.items()}
        parsed = Settings.from_env(environ)
        names = ("tokens", "tokens_file", "rate_limit", "cors_origins", "trusted_proxies")
        return make_client(**{name: getattr(parsed, name) for name in names})

    return build


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


# Tokens


@pytest.mark.parametrize(
    "headers",
    [bearer(TOKEN), bearer(OTHER), {"Authorization": f"bearer {TOKEN}"}, basic(f"me:{TOKEN}"),
     basic(f":{OTHER}")],
    ids=["bearer", "another", "small letters", "password", "password without a name"],
)  # fmt: skip
def test_whoever_brings_a_token_is_let_in(serve, headers):
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
def test_whoever_brings_none_is_refused_whatever_he_asks(serve, method, path, headers):
    response = serve(tokens=f"{TOKEN},{OTHER}").open(path, method=method, headers=headers)
    assert response.status_code == 401
    assert response.mimetype == "application/problem+json"
    assert "Authorization: Bearer" in response.json["detail"]
    assert response.headers.getlist("WWW-Authenticate") == [
        'Bearer realm="the token is the password"',
        'Basic realm="the token is the password"',
    ]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_the_probes_are_open(serve, path):
    assert serve(tokens=TOKEN, rate_limit="1/day").get(path).status_code == 200
    assert serve(tokens=TOKEN).get(path, headers=bearer("wrong")).status_code == 200


def test_every_new_address_is_closed_until_somebody_opens_it(serve):
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
def test_the_body_of_whoever_is_refused_is_not_read(serve, path):
    client = serve(tokens=TOKEN, rate_limit="1/day")
    statuses = [
        client.post(
            path, input_stream=Unreadable(bytes(1000)), content_type="image/png"
        ).status_code
        for _ in range(2)
    ]
    assert statuses == [401, 429]


def test_a_form_without_javascript_is_let_in_by_the_browsers_own_question(serve):
    client = serve(tokens=TOKEN)
    form = {"file": (io.BytesIO(picture("blue")), "photo.png")}
    assert client.post("/", data=form).status_code == 401
    form = {"file": (io.BytesIO(picture("blue")), "photo.png")}
    response = client.post("/", data=form, headers=basic(f"me:{TOKEN}"))
    assert "blue thing" in response.text


def test_tokens_of_the_environment_and_of_the_file_hold_side_by_side(serve, tmp_path):
    (tmp_path / "tokens").write_text(OTHER)
    client = serve(tokens=TOKEN, tokens_file=tmp_path / "tokens")
    assert client.get("/", headers=bearer(TOKEN)).status_code == 200
    assert client.get("/", headers=bearer(OTHER)).status_code == 200


# Rate limit


def ask(client, address="192.0.2.1", **headers):
    return client.post(
        "/predict", data=picture(), headers=headers, environ_base={"REMOTE_ADDR": address}
    )


def test_above_its_rate_a_client_is_refused_and_told_when_to_come_again(serve):
    client = serve(rate_limit="2/hour")
    assert [ask(client).status_code for _ in range(2)] == [200, 200]
    response = ask(client)
    assert response.status_code == 429
    assert response.mimetype == "application/problem+json"
    assert "2 per 1 hour" in response.json["detail"]
    assert 3500 < int(response.headers["Retry-After"]) <= 3600


def test_a_photo_that_comes_with_get_counts_and_the_page_does_not(serve):
    client = serve(rate_limit="1/hour")
    statuses = [client.get("/predictions/toy", data=data).status_code for data in (b"x", b"x")]
    assert statuses[1] == 429
    assert client.get("/").status_code == 200


def test_of_several_rates_each_holds(serve):
    client = serve(rate_limit="100/second; 1/day")
    assert [ask(client).status_code for _ in range(2)] == [200, 429]


def test_one_clients_rate_is_not_anothers(serve):
    client = serve(rate_limit="1/day")
    assert ask(client, "192.0.2.1").status_code == 200
    assert ask(client, "192.0.2.2").status_code == 200


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),  # a Unix socket
    ],
)
def test_whoever_has_one_address_of_a_64_has_all(serve, first, second, same):
    client = serve(rate_limit="1/day")
    assert ask(client, first).status_code == 200
    assert ask(client, second).status_code == (429 if same else 200)


def test_where_there_are_tokens_the_token_is_the_client(serve):
    client = serve(rate_limit="1/day", tokens=f"{TOKEN},{OTHER}")
    assert ask(client, "192.0.2.1", **bearer(TOKEN)).status_code == 200
    assert ask(client, "192.0.2.2", **bearer(TOKEN)).status_code == 429
    assert ask(client, "192.0.2.1", **bearer(OTHER)).status_code == 200


def test_guessing_tokens_is_limited_too(serve):
    client = serve(rate_limit="2/day", tokens=TOKEN)
    assert [ask(client, **bearer(f"guess-{i:011}")).status_code for i in range(3)] == [
        401,
        401,
        429,
    ]


def test_what_costs_nothing_is_not_counted(serve):
    client = serve(rate_limit="1/day")
    for path in ("/healthz", "/readyz", "/", "/static/page.js") * 2:
        with client.get(path) as response:
            assert response.status_code == 200
    assert ask(client).status_code == 200


def test_the_page_says_in_words_that_it_was_too_often(serve):
    client = serve(rate_limit="1/day")
    pages = [
        client.post("/", data={"file": (io.BytesIO(picture()), "photo.png")}) for _ in range(2)
    ]
    assert [page.status_code for page in pages] == [200, 429]
    assert pages[1].mimetype == "text/html"
    assert "1 per 1 day" in pages[1].text
    assert int(pages[1].headers["Retry-After"]) > 0


# Proxies


def test_without_a_proxy_nobody_walks_around_the_rate_by_a_header(serve):
    client = serve(rate_limit="1/day")
    answers = [ask(client, **{"X-Forwarded-For": f"192.0.2.{i}"}).status_code for i in range(2)]
    assert answers == [200, 429]


def test_behind_a_proxy_the_client_is_whom_the_proxy_names(serve):
    client = serve(rate_limit="1/day", trusted_proxies=1)
    assert ask(client, **{"X-Forwarded-For": "192.0.2.8"}).status_code == 200
    assert ask(client, **{"X-Forwarded-For": "192.0.2.9"}).status_code == 200
    forged = {"X-Forwarded-For": "203.0.113.1, 192.0.2.9"}  # the proxy adds the last one
    assert ask(client, **forged).status_code == 429


def test_behind_two_proxies_the_client_is_whom_the_outer_one_names(serve):
    client = serve(rate_limit="1/day", trusted_proxies=2)
    for outer, status in (("192.0.2.8", 200), ("192.0.2.9", 200), ("192.0.2.9", 429)):
        chain = {"X-Forwarded-For": f"203.0.113.1, {outer}, 10.0.0.1"}
        assert ask(client, **chain).status_code == status


@pytest.mark.parametrize(("proxies", "prefix"), [(0, ""), (1, "/photos"), (2, "/photos")])
def test_behind_a_proxy_the_page_can_live_below_a_path(serve, proxies, prefix):
    client = serve(trusted_proxies=proxies)
    page = client.get("/", headers={"X-Forwarded-Prefix": "/photos"}).text
    assert f'src="{prefix}/static/page.js"' in page
    assert f'action="{prefix}/"' in page


# CORS


def test_without_origins_no_answer_is_shared(serve):
    client = serve()
    for method in ("GET", "OPTIONS"):
        asked = {"Origin": OURS, "Access-Control-Request-Method": "POST"}
        response = client.open("/predict", method=method, headers=asked)
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("origins", [OURS, f"http://localhost:3000,{OURS}", "*"])
def test_a_page_of_an_origin_named_may_ask_and_read_answers_and_errors(serve, origins):
    client = serve(cors_origins=origins)
    for data, status in ((picture(), 200), (b"text", 415)):
        response = client.post("/predict", data=data, headers={"Origin": OURS})
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == OURS
        assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
        assert "Origin" in response.vary
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    "origin",
    ["https://example.org.evil.test", "https://evil.test", "http://example.org", "null", "*"],
)
def test_a_page_of_another_origin_reads_nothing(serve, origin):
    client = serve(cors_origins=OURS)
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for method in ("POST", "OPTIONS"):
        response = client.open("/predict", method=method, headers=asked)
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.vary


def test_the_preflight_needs_no_token_and_allows_to_send_one(serve):
    client = serve(cors_origins=OURS, tokens=TOKEN, rate_limit="1/day")
    asked = {"Origin": OURS, "Access-Control-Request-Method": "POST"}
    for _ in range(2):
        response = client.options("/predict", headers=asked)
        assert response.status_code == 204
        assert response.headers["Access-Control-Allow-Origin"] == OURS
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]


def test_a_refusal_for_want_of_a_token_can_be_read_by_the_page(serve):
    client = serve(cors_origins=OURS, tokens=TOKEN, rate_limit="1/day")
    for status in (401, 429):
        response = ask(client, Origin=OURS)
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == OURS


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
def test_every_answer_carries_the_headers_of_a_careful_server(serve, method, path, status):
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
def test_no_answer_has_a_traceback_even_where_debugging_is_on(serve, debug):
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
def test_an_address_is_refused_and_nobody_is_asked_for_it(serve, path, kind, field):
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
def test_an_address_in_the_query_is_not_followed(serve, parameter):
    response = serve().post(f"/predict?{parameter}=file:///etc/hostname")
    assert response.status_code == 400
    assert "body is empty" in response.json["detail"]


# What is sent to us stays what it is


def test_what_a_caller_sends_is_text_on_the_page(serve):
    field = "<script>alert(1)</script>"
    page = serve().post("/", data={field: "x"}, content_type="multipart/form-data").text
    assert "&lt;script&gt;alert(1)" in page
    assert field not in page


@pytest.mark.parametrize("path", ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "..\\app.py", "%00"])
def test_no_path_leads_out_of_the_static_files(serve, path):
    assert serve().get(f"/static/{path}").status_code == 404


def test_no_photo_touches_a_disk(serve, monkeypatch):
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", lambda **_: pytest.fail("disk"))
    form = {"file": (io.BytesIO(picture()), "photo.png")}
    assert serve().post("/predict", data=form).status_code == 200

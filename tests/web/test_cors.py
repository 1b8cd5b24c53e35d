"""What pages of other origins may do with the API, and which sites may show the page."""

import pytest

from pictures import picture
from predictor.errors import SettingsError
from predictor.settings import Settings

TOKEN = "correct-horse-battery"
ORIGIN = "https://example.org"
ASKED = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
READABLE = {"Retry-After", "X-Request-ID", "Server-Timing", "X-Class-Index"}


def settings(**texts):
    return Settings.from_env({f"PREDICTOR_{name.upper()}": text for name, text in texts.items()})


@pytest.fixture
def serve(make_client):
    """A client of an app with these settings, written as an operator writes them."""

    def build(**texts):
        parsed = settings(**texts)
        return make_client(**{name: getattr(parsed, name) for name in texts})

    return build


def test_no_cors_headers_by_default(serve):
    client = serve()
    for method in ("GET", "OPTIONS"):
        response = client.open("/predict", method=method, headers=ASKED)
        assert not [name for name, _ in response.headers if name.startswith("Access-Control")]
        assert "Timing-Allow-Origin" not in response.headers


@pytest.mark.parametrize("origins", [ORIGIN, f"http://localhost:3000,{ORIGIN}", "*"])
def test_page_of_an_allowed_origin_reads_answers_and_errors(serve, origins):
    client = serve(cors_origins=origins)
    for data, status in ((picture(), 200), (b"text", 415)):
        response = client.post("/predict", data=data, headers={"Origin": ORIGIN})
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Timing-Allow-Origin"] == ORIGIN
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert set(exposed) >= READABLE
        assert "Origin" in response.vary
        assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize(
    "origin",
    ["https://example.org.evil.test", "https://evil.test", "http://example.org", "null", "*",
     "file://", "capacitor://example.org"],
)  # fmt: skip
def test_page_of_another_origin_reads_nothing(serve, origin):
    client = serve(cors_origins=ORIGIN)
    for method in ("POST", "OPTIONS"):
        response = client.open("/predict", method=method, headers={**ASKED, "Origin": origin})
        allowed = [name for name, _ in response.headers if name.startswith("Access-Control-Allow")]
        assert allowed == []
        assert "Origin" in response.vary


@pytest.mark.parametrize(
    "names",
    [
        "ngrok-skip-browser-warning",
        "cache-control,x-requested-with",
        "Authorization, X-Api-Key",
        "",
    ],
)
def test_preflight_allows_every_header_that_is_asked_for(serve, names):
    """Colab's users need ngrok's header; Dropzone sends Cache-Control and X-Requested-With."""
    asked = {**ASKED, "Access-Control-Request-Headers": names}
    response = serve(cors_origins=ORIGIN).options("/predict", headers=asked)
    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Headers"] == names


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
def test_preflight_allows_every_method_of_the_api(serve, method):
    response = serve(cors_origins=ORIGIN).options("/predict", headers=ASKED)
    assert method in response.headers["Access-Control-Allow-Methods"].split(", ")


def test_preflight_allows_a_server_in_a_private_network(serve):
    asked = {**ASKED, "Access-Control-Request-Private-Network": "true"}
    response = serve(cors_origins=ORIGIN).options("/predict", headers=asked)
    assert response.headers["Access-Control-Allow-Private-Network"] == "true"


def test_preflight_needs_no_token_and_does_not_count_for_the_rate_limit(serve):
    client = serve(cors_origins=ORIGIN, tokens=TOKEN, rate_limit="1/day")
    for _ in range(2):
        response = client.options("/predict", headers=ASKED)
        assert response.status_code == 204
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


def test_options_without_a_preflights_header_is_a_normal_request(serve):
    client = serve(cors_origins=ORIGIN)
    assert "paths" in client.options("/", headers={"Origin": ORIGIN}).json


def test_page_of_an_allowed_origin_can_read_401_and_429(serve):
    client = serve(cors_origins=ORIGIN, tokens=TOKEN, rate_limit="1/day")
    for status in (401, 429):
        response = client.post("/predict", data=picture(), headers={"Origin": ORIGIN})
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


# The settings


@pytest.mark.parametrize(
    "origin",
    ["https://example.org", "http://localhost:3000", "http://[::1]:8080", "*",
     "capacitor://localhost", "ionic://localhost", "app://.", "tauri://localhost",
     "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
     "moz-extension://2c127fa4-62c7-7e4f-90e5-472b45eecfdc",
     "safari-web-extension://E0E4C2E9-8D0A-4B0B-9C0B-6B1C2E1F0A5D", "file://", "null"],
)  # fmt: skip
def test_an_origin_is_accepted_as_browsers_send_it(serve, origin):
    assert settings(cors_origins=f"https://a.example, {origin}").cors_origins[1] == origin
    client = serve(cors_origins=origin)
    answer = client.get("/healthz", headers={"Origin": origin})
    assert answer.headers["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize(
    "origin",
    ["example.org", "https://example.org/", "https://*.example.org", "https://Example.org",
     "https://a@example.org", "https://", "://a", "capacitor:", "localhost:3000", "none", ""],
)  # fmt: skip
def test_an_invalid_origin_is_an_error(origin):
    with pytest.raises(SettingsError, match=r"PREDICTOR_CORS_ORIGINS=.* is not an origin"):
        settings(cors_origins=f"https://a.example,{origin}")


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize(
    ("text", "ancestors"),
    [
        ("none", "'none'"),
        ("https://huggingface.co", "https://huggingface.co"),
        (
            "https://a.example, https://*.b.example:8443",
            "https://a.example https://*.b.example:8443",
        ),
        ("'self' http://localhost:*", "'self' http://localhost:*"),
        ("self", "'self'"),
        ("*", "*"),
        ("https://*", "https://*"),
        ("vscode-webview:", "vscode-webview:"),
    ],
)
def test_the_sites_of_the_setting_may_frame_the_page(serve, path, text, ancestors):
    policy = serve(frame_ancestors=text).get(path).headers["Content-Security-Policy"]
    assert policy.endswith(f"; frame-ancestors {ancestors}")


@pytest.mark.parametrize(
    "text",
    ["example.org", "https://example.org/page", "https://a.example; img-src *", "'unsafe-inline'",
     "https://a.example 'none'", "HTTPS://a.example", "https://a.*.example"],
)  # fmt: skip
def test_an_invalid_frame_ancestor_is_an_error(text):
    with pytest.raises(SettingsError, match=r"PREDICTOR_FRAME_ANCESTORS=.* is not a site"):
        settings(frame_ancestors=text)

"""The addresses that the app hands out, below a path prefix that it may not know of."""

import re
from urllib.parse import urljoin

import pytest
from werkzeug.test import EnvironBuilder, run_wsgi_app

PREFIX = "http://hub/user/a/proxy/5000"
ADDRESS = re.compile(
    r'(?:href|src|action|data-endpoint|data-explain|data-ready|data-document)="([^"]*)"'
)


def links(client, path, **headers):
    return ADDRESS.findall(client.get(path, headers=headers).text)


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/"])
@pytest.mark.parametrize("state", ["loaded", "loading"])
def test_every_address_stays_below_a_prefix_that_the_app_does_not_know(
    client, loading_client, path, state
):
    client = client if state == "loaded" else loading_client
    found = links(client, path)
    assert len(found) >= 6
    for link in found:
        address = urljoin(PREFIX + path, link)
        assert address.startswith(PREFIX + "/")
        with client.options(address.removeprefix(PREFIX)) as response:
            assert response.status_code != 404


@pytest.mark.parametrize(("hops", "start"), [(0, "static"), (1, "/pho%20tos/static")])
def test_addresses_have_the_prefix_that_a_trusted_proxy_announces(make_client, hops, start):
    """The proxy may also serve the page at the prefix without a slash at its end."""
    client = make_client(trusted_proxies=hops)
    for path in ("/", "/docs"):
        found = links(client, path, **{"X-Forwarded-Prefix": "/pho%20tos"})
        assert f"{start}/icon.svg" in found


@pytest.mark.parametrize(
    "prefix",
    ["//evil.example", "javascript:x", "/\\evil.example", "/\t/evil.example", "/a, //evil.example"],
)
def test_prefix_that_is_not_a_path_is_ignored(make_client, prefix):
    client = make_client(trusted_proxies=1)
    assert "static/icon.svg" in links(client, "/", **{"X-Forwarded-Prefix": prefix})
    assert "/b/static/icon.svg" in links(client, "/", **{"X-Forwarded-Prefix": "//evil, /b"})


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("//docs", "../openapi.json"),
        ("/docs//", "../../openapi.json"),
        ("//docs//", "../../../openapi.json"),
    ],
)
def test_a_page_at_a_path_with_doubled_slashes_has_right_addresses(app, path, document):
    body, status, _ = ask(app, path)
    assert status.startswith("200")
    assert f'href="{document}"' in b"".join(body).decode()


def test_no_path_is_redirected(app):
    """A redirect would lead out of a prefix that the app does not know."""
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert len(rules) > 20
    for rule in rules:
        for path in (rule, f"{rule}/", rule.rstrip("/"), rule.replace("/", "//")):
            _, status, _ = ask(app, path)
            assert (path, status[0] == "3") == (path, False)


def ask(app, path):
    """The answer to a path, which a test client would normalise."""
    return run_wsgi_app(app, EnvironBuilder().get_environ() | {"PATH_INFO": path})

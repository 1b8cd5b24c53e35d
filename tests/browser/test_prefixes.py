"""The page and /docs below a path, behind real proxies."""

import re
from contextlib import ExitStack

import pytest
import requests
from playwright.sync_api import expect

import proxies
from chromium import choose, expect_espresso, needs_chromium, try_out
from running_server import Server

pytestmark = needs_chromium

TOKEN = "a-token-of-jupyter"
MODEL = "efficientnet_lite0"


@pytest.fixture(scope="module")
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def whole(stack):
    """A server that knows its prefix, because the proxy leaves it in the path."""
    server = Server(model=MODEL, under=("env", "SCRIPT_NAME=/whole/photos"))
    stack.callback(server.close)
    return server.wait_until_ready()


@pytest.fixture(scope="module")
def nginx(stack, site, tmp_path_factory):
    return stack.enter_context(proxies.nginx(site.url, tmp_path_factory.mktemp("nginx")))


@pytest.fixture(scope="module")
def jupyter(stack, tmp_path_factory):
    return stack.enter_context(proxies.jupyter(tmp_path_factory.mktemp("jupyter"), TOKEN))


@pytest.fixture(params=["announced", "not announced", "left in the path", "jupyter"])
def root(request, tmp_path):
    """The address of the page, and the path prefix."""
    get = request.getfixturevalue
    if request.param == "announced":
        return get("nginx"), "/told/photos/"
    if request.param == "not announced":
        return get("nginx"), "/untold/photos/"
    if request.param == "left in the path":
        url = get("stack").enter_context(proxies.nginx(get("whole").url, tmp_path))
        return url, "/whole/photos/"
    return get("jupyter"), f"/proxy/{get('site').address[1]}/"


@pytest.fixture
def open_below(browser, root):
    """Open a path below the prefix; all requests must stay below it, and succeed."""
    context, failed = browser.new_context(), []

    def note(response):
        if response.status >= 400 or not response.url.startswith(("".join(root), "blob:")):
            failed.append((response.status, response.url))

    def open_(path):
        log_in(context, root)
        page = context.new_page()
        page.on("response", note)
        page.goto("".join(root) + path)
        return page

    yield open_
    context.close()
    assert failed == []


def log_in(context, root):
    """Jupyter answers a request with its token with a cookie."""
    context.request.get(f"{root[0]}/?token={TOKEN}")


def test_the_page_works_below_a_prefix(open_below, photo, root):
    page = open_below("")
    choose(page, photo)
    expect_espresso(page)
    page.locator(".row").first.click()
    expect(page.locator("canvas")).to_be_visible()
    page.locator("summary").click()
    expect(page.locator(".curl code")).to_contain_text("".join(root) + "predict?top_k=5")
    page.get_by_role("button", name="cat", exact=True).click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_role("link", name="API docs").click()
    expect(page.locator(".opblock").first).to_be_visible(timeout=30_000)


def test_the_docs_page_works_below_a_prefix(open_below, photo):
    answer = try_out(open_below("docs/"), "photos", "predict", photo)
    expect(answer).to_contain_text('"class_name": "espresso"')


def test_the_form_works_below_a_prefix_without_javascript(browser, root, photo):
    with browser.new_context(java_script_enabled=False) as context:
        log_in(context, root)
        page = context.new_page()
        page.goto("".join(root))
        choose(page, photo)
        page.get_by_role("button", name="Classify").click()
        expect_espresso(page)
        assert page.url == "".join(root)


def test_nginx_and_the_app_agree_on_the_slash_at_the_end(nginx):
    answer = requests.get(f"{nginx}/untold/photos", timeout=60)
    assert answer.url.endswith("/photos/")
    assert re.search('src="static/page.js"', answer.text)

"""The page at /docs: Swagger UI from the installed package, under our Content-Security-Policy."""

from playwright.sync_api import expect

from chromium import TOKEN, needs_chromium, try_out

pytestmark = needs_chromium


def test_the_docs_page_shows_every_operation(open_page):
    page = open_page("/docs")
    expect(page.locator("h1")).to_contain_text("A photo in, the right class out")
    described = page.evaluate("fetch('openapi.json').then(r => r.json()).then(d => d.paths)")
    methods = [method for item in described.values() for method in item.keys() - {"parameters"}]
    expect(page.locator(".opblock")).to_have_count(len(methods))


def test_the_docs_page_requests_nothing_from_other_servers(open_page, site):
    """`open_page` checks this for every page; this one must also load without errors."""
    page = open_page("/healthz")
    requested, errors = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: errors.append(message) if message.type == "error" else None)
    page.goto(f"{site.url}/docs", wait_until="networkidle")
    expect(page.locator(".opblock").first).to_be_visible()
    assert len(requested) >= 5
    assert [url for url in requested if not url.startswith(site.url)] == []
    assert [message.text for message in errors] == []


def test_predict_can_be_tried_out_on_the_docs_page(open_page, photo):
    answer = try_out(open_page("/docs"), "photos", "predict", photo)
    expect(answer).to_contain_text('"class_name": "espresso"')


def test_the_docs_page_shows_the_heat_map_of_explain(open_page, photo):
    picture = try_out(open_page("/docs"), "photos", "explain", photo).locator("img")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 600


def test_the_docs_page_works_with_the_browsers_login(browser, guarded, photo):
    context = browser.new_context(http_credentials={"username": "me", "password": TOKEN})
    page = context.new_page()
    page.goto(f"{guarded.url}/docs")
    answer = try_out(page, "photos", "predict", photo)
    expect(answer).to_contain_text('"class_name": "espresso"')
    context.close()


def test_the_page_links_to_the_docs_page(open_page):
    page = open_page()
    page.get_by_role("link", name="API docs").click()
    expect(page).to_have_title("API docs")
    expect(page.locator(".opblock").first).to_be_visible()

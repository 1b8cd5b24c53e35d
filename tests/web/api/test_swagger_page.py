"""The page with the API documentation, without a browser."""

import re


def test_docs_page_loads_nothing_from_other_servers(client):
    response = client.get("/docs")
    links = re.findall(r'(?:src|href|data-document)="([^"]*)"', response.text)
    assert len(links) == 6
    for link in links:
        assert "//" not in link
        with client.get(f"/{link}") as answer:
            assert answer.status_code == 200
    assert not re.search(r"<script(?![^>]*src=)|style=|onclick", response.text)
    assert "unsafe" not in response.headers["Content-Security-Policy"]


def test_docs_page_may_be_framed_only_by_allowed_pages(app, client):
    def ancestors():
        return client.get("/docs").headers["Content-Security-Policy"].rpartition("ancestors ")[2]

    assert ancestors() == "'none'"
    app.config["FRAME_ANCESTORS"] = "https://notebook.example"
    assert ancestors() == "https://notebook.example"

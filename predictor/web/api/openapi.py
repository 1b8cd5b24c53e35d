"""``GET /openapi.json``, and ``GET /docs``, which shows the description in Swagger UI."""

from importlib.resources import files

from flask import Blueprint, Response, make_response, render_template

from predictor.web.openapi import description
from predictor.web.security import allow_frames

blueprint = Blueprint(
    "openapi",
    __name__,
    static_folder=str(files("flask_swagger_ui") / "dist"),
    static_url_path="/docs/swagger-ui",
)

# Swagger UI's style sheet contains icons as data: URLs. Responses that are pictures are blobs.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'"
)


@blueprint.get("/openapi.json")
def show() -> Response:
    """Return the OpenAPI description of this app."""
    return Response(description(), mimetype="application/json")


@blueprint.get("/docs", strict_slashes=False)
def docs() -> Response:
    """Return the OpenAPI description as a page, with a form to try each operation."""
    return allow_frames(make_response(render_template("docs.html")), POLICY)

"""The API page and the OpenAPI document, as they are served."""

from pathlib import Path

from gateway.body import Document
from gateway.docs.page import page
from gateway.openapi.document import as_json, document

STATIC = Path(__file__).parent / "static"


def documents() -> dict[str, Document]:
    """Every fixed document, by path."""
    return {
        "/openapi.json": Document.of(as_json(), "application/json"),
        "/docs": Document.of(page(document()).encode(), "text/html; charset=utf-8"),
        "/docs/icon.svg": Document.of((STATIC / "icon.svg").read_bytes(), "image/svg+xml"),
        "/docs/docs.css": Document.of((STATIC / "docs.css").read_bytes(), "text/css; charset=utf-8"),
        "/docs/docs.js": Document.of((STATIC / "docs.js").read_bytes(), "text/javascript; charset=utf-8"),
    }

"""A document that does not change while the process lives: sent compressed, or not at all to who has it already."""

import gzip
import hashlib
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

MAX_AGE_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The document with its entity tag and its compressed form."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Document":
        """Compresses once."""
        return cls(
            content=content,
            compressed=gzip.compress(content, mtime=0),
            media_type=media_type,
            tag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        )

    def answer(self, request: Request, *, headers: dict[str, str] | None = None) -> Response:
        """200 with the content, or 304 where the tag fits."""
        common = {
            "etag": self.tag,
            "cache-control": f"public, max-age={MAX_AGE_S}",
            "vary": "accept-encoding",
            "x-content-type-options": "nosniff",
            **(headers or {}),
        }
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=common)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.compressed, media_type=self.media_type, headers={**common, "content-encoding": "gzip"})
        return Response(self.content, media_type=self.media_type, headers=common)

"""How much of a request is read? Never more than a bound, whatever the client announced."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST_BODY = 1024 * 1024


class TooLarge(ValueError):
    """The body is larger than anything that is meant to come in."""


async def read_body(request: Request) -> bytes:
    """Return the body of a request; raise ``TooLarge`` beyond ``LARGEST_BODY`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            msg = f"the body is larger than {LARGEST_BODY} bytes"
            raise TooLarge(msg)
    return bytes(body)

"""Who may come in, and did a page of ours send them? The owner of the token, or whom a proxy's login names.

A session is a signed cookie of twelve hours of machine time; its key is derived from the token, so that a new token
ends every session. What changes something is refused unless the browser says that it comes from the same origin.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from itsdangerous import BadData, URLSafeTimedSerializer

from worker.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

COOKIE, PATH, HOURS = "dunning_console", "/console", 12
OWNER = "console"  # who has the token has no other name
LONGEST_NAME = 100
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Guard:
    """The two ways in: the ``token``, and the ``header`` that holds a name when it comes from one of ``proxies``."""

    token: str | None = field(repr=False)
    header: str | None
    proxies: tuple[IPv4Network | IPv6Network, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> Guard | None:
        """Return the guard of an installation; ``None`` while neither way in is configured."""
        if settings.console_token is None and settings.console_user_header is None:
            return None
        token = settings.console_token.get_secret_value() if settings.console_token else None
        return cls(token, settings.console_user_header, settings.console_proxies)

    def who(self, request: Request) -> str | None:
        """Return the name of whoever sent a request, or None for a stranger."""
        return self._named(request) or self._session(request)

    def admits(self, token: str) -> bool:
        """Whether this is the token."""
        return self.token is not None and hmac.compare_digest(token.encode(), self.token.encode())

    def let_in(self, request: Request, response: Response) -> Response:
        """Give whoever showed the token a session."""
        secure = not at_home(request)
        signed, seconds = str(self._signer().dumps(OWNER)), HOURS * 3600
        response.set_cookie(COOKIE, signed, seconds, path=PATH, secure=secure, httponly=True, samesite="strict")
        return response

    def let_out(self, response: Response) -> Response:
        """End the session of a browser."""
        response.delete_cookie(COOKIE, PATH)
        return response

    def _named(self, request: Request) -> str | None:
        if self.header is None or not self._trusts(request.client.host if request.client else ""):
            return None
        names = [name.strip() for name in request.headers.getlist(self.header)]
        good = len(names) == 1 and len(names[0]) <= LONGEST_NAME and names[0].isprintable()
        return names[0] or None if good else None

    def _trusts(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        plain = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return any((plain or address) in network for network in self.proxies)

    def _session(self, request: Request) -> str | None:
        if self.token is None:
            return None
        try:
            return str(self._signer().loads(request.cookies.get(COOKIE, ""), max_age=HOURS * 3600))
        except BadData:
            return None

    def _signer(self) -> URLSafeTimedSerializer:
        how = {"digest_method": sha256, "key_derivation": "hmac"}
        return URLSafeTimedSerializer(str(self.token), salt="dunning console session", signer_kwargs=how)


def at_home(request: Request) -> bool:
    """Whether the browser sees this machine itself, where there is no network to listen on."""
    host = request.headers.get("host", "")
    return (host if host.endswith("]") else host.rpartition(":")[0] or host) in LOOPBACK


def same_origin(request: Request) -> bool:
    """Whether a browser says that a page of ours, or the person, sent a request; what does not say so did not."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin, host = request.headers.get("origin", ""), request.headers.get("host")
    return bool(host) and origin.partition("://")[2].lower() == str(host).lower()

"""Somebody with a browser before the console of one installation."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

TOKEN = "canary" * 6
OURS = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Visitor:
    """Somebody with a browser, at one installation."""

    base: str
    browser: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, **more: Any) -> requests.Response:
        """Open a page without following where it leads."""
        return self.browser.get(f"{self.base}/console{path}", allow_redirects=False, timeout=30, **more)

    def post(self, path: str, headers: Any = None, **form: Any) -> requests.Response:
        """Send a form; by default from a page of the console."""
        sent, address = OURS if headers is None else headers, f"{self.base}/console{path}"
        return self.browser.post(address, form, headers=sent, allow_redirects=False, timeout=30)

    def reads(self, path: str) -> str:
        """Return the words of a page that is there, without its tags."""
        answer = self.get(path)
        assert answer.status_code == 200
        return words(answer)


def words(answer: requests.Response) -> str:
    """Return what a page says, in one line."""
    return " ".join(re.sub("<[^>]*>", " ", answer.text).split())


Open = Callable[..., Visitor]

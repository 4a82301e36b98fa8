"""How is this installation configured? One frozen value read once from the environment.

Every variable ``NAME`` may come from a file named by ``NAME_FILE`` instead. A wrong value stops the start and
names the variable, never its content.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from contextlib import suppress
from email.utils import parseaddr
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "DUNNING_"
LEAST_SECRET = 32
LONGEST_WAIT = 5.0  # seconds that a request to the provider may wait for its turn
SMTP_URL = re.compile(r"smtps?://([^\s/?#]+@)?([^\s/?#@:\[\]]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?/?")
COLOUR = re.compile("#[0-9a-fA-F]{6}")
LINK_BASE = re.compile(r"(https://[^\s/?#@]+|http://(127\.0\.0\.1|localhost)(:\d+)?)(/[^\s?#]*)?")
HEADER = re.compile("[A-Za-z0-9-]{1,100}")
HOOK_URL = re.compile(LINK_BASE.pattern + r"(\?[^\s#]*)?")


class SettingsError(ValueError):
    """A setting that cannot be used; the message names the variable and what was expected."""


class Settings(BaseSettings):
    """All settings. Seconds are machine time."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, env_ignore_empty=True)

    home: Path = Field(Path(".dunning"), description="Folder of the embedded servers and of kept notices")
    database_url: str | None = Field(
        None, repr=False, description="PostgreSQL, as postgresql+psycopg://…; unset: embedded"
    )
    broker_url: str | None = Field(None, repr=False, description="Redis or Valkey, as redis://…; unset: embedded")
    stripe_api_key: SecretStr | None = Field(None, description="Secret or restricted key of the account")
    stripe_api_base: str = Field("https://api.stripe.com", description="Address of the Stripe API")
    stripe_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Signing secrets of the webhook endpoint; a comma list during a roll"
    )
    smtp_url: SecretStr | None = Field(None, description="smtp://user:password@host:port; unset: kept as .eml files")
    mail_from: str = Field("billing@localhost", description="Sender address of the notices")
    mail_reply_to: str | None = Field(None, description="Where customers' answers go; unset: to the sender")
    merchant_name: str | None = Field(
        None, description="Who writes to the customers; unset: the name in the sender's address"
    )
    merchant_colour: str = Field("#1d4ed8", description="Colour of the button in notices and pages, as #rrggbb")
    templates: Path | None = Field(
        None, description="Folder of own templates and words, laid over ours; see docs/notices.md"
    )
    public_url: str | None = Field(
        None, description="https address under which customers reach `dunning web`; unset: notices link to Stripe"
    )
    link_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Signs the links in notices, from 32 characters; a comma list during a roll, the first signs"
    )
    hook_url: SecretStr | None = Field(
        None, description="https address of your own that is told what happens to cases; see docs/webhooks.md"
    )
    hook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="whsec_ and 24 to 64 bytes in base64; signs what we tell; a comma list during a roll, all sign"
    )
    mail_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="whsec_ and 24 to 64 bytes in base64; verifies what a mail service reports; a comma list"
    )
    signals_secret: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="whsec_ and 24 to 64 bytes in base64; verifies what you send to /signals; a comma list"
    )
    console_token: SecretStr | None = Field(
        None, description="Opens the console to whoever has it, from 32 characters; see docs/console.md"
    )
    console_user_header: str | None = Field(
        None, description="Header in which a proxy's login names the operator, such as X-Forwarded-User"
    )
    console_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (ip_network("127.0.0.1"), ip_network("::1")),
        description="Addresses or networks whose user header is believed, a comma list",
    )
    policy: Path | None = Field(None, description="TOML file with the merchant's policy; unset: the default policy")
    risk_model: Path | None = Field(
        None, description="File of `dunning risk learn` that scores instead of the rules; see docs/risk.md"
    )
    mode: Literal["observe", "live"] = Field("observe", description="observe plans and never writes; live charges")
    live_switch: Literal["off", "on"] = Field(
        "off", description="on lets live mode charge real customers with a live key; a test key needs no switch"
    )
    clock_file: Path | None = Field(None, description="Stepped business clock, for practice only")
    tick_seconds: float = Field(10, gt=0, description="How often beat wakes the sweep")
    connect_seconds: float = Field(5, gt=0, description="Time limit for a connection to the provider")
    read_seconds: float = Field(25, gt=0, description="Time limit for an answer of the provider")
    requests_per_second: float = Field(
        15, gt=0, le=100, description="How many requests a second all workers together send to one endpoint of Stripe"
    )
    keep_events_days: int = Field(90, ge=31, description="How long handled events are kept; Stripe lists them for 30")
    keep_history_days: int | None = Field(
        None, ge=31, description="How long the history of a case is kept after its end; unset: for ever"
    )
    lease_seconds: float = Field(180, gt=0, description="How long one worker owns a case or a notice")

    @field_validator(
        "stripe_webhook_secret",
        "link_secret",
        "hook_secret",
        "mail_webhook_secret",
        "signals_secret",
        "console_proxies",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("public_url")
    @classmethod
    def _secure(cls, value: str | None) -> str | None:
        # Plain HTTP would show the token to the network; a loopback address has none.
        if value is not None and not LINK_BASE.fullmatch(value):
            msg = "expected https://host, with a path or without"
            raise ValueError(msg)
        return value.rstrip("/") if value else value

    @field_validator("mail_reply_to")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and ("@" not in parseaddr(value)[1] or not value.isprintable()):
            msg = "expected an e-mail address"
            raise ValueError(msg)
        return value

    @field_validator("merchant_name")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            msg = "expected one line of text"
            raise ValueError(msg)
        return value

    @field_validator("merchant_colour")
    @classmethod
    def _colour(cls, value: str) -> str:
        if not COLOUR.fullmatch(value):
            msg = "expected a colour as #rrggbb"
            raise ValueError(msg)
        return value

    @field_validator("link_secret")
    @classmethod
    def _long(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(secret.get_secret_value()) < LEAST_SECRET for secret in value):
            msg = f"expected at least {LEAST_SECRET} characters, as `openssl rand -hex 32` gives"
            raise ValueError(msg)
        return value

    @field_validator("console_token")
    @classmethod
    def _long_token(cls, value: SecretStr | None) -> SecretStr | None:
        cls._long((value,) if value else ())
        return value

    @field_validator("console_user_header")
    @classmethod
    def _header(cls, value: str | None) -> str | None:
        if value is not None and not HEADER.fullmatch(value):
            msg = "expected the name of a header such as X-Forwarded-User"
            raise ValueError(msg)
        return value

    @field_validator("hook_url")
    @classmethod
    def _secure_hook(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not HOOK_URL.fullmatch(value.get_secret_value()):
            msg = "expected https://host, or http on this machine, with a path or without"
            raise ValueError(msg)
        return value

    @field_validator("hook_secret", "mail_webhook_secret", "signals_secret")
    @classmethod
    def _key(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(_is_key(secret.get_secret_value()) for secret in value):
            msg = "expected whsec_ and the base64 of 24 to 64 bytes, as `openssl rand -base64 32` gives"
            raise ValueError(msg)
        return value

    @field_validator("smtp_url")
    @classmethod
    def _mail_server(cls, value: SecretStr | None) -> SecretStr | None:
        with suppress(ValueError):  # a port that is none
            if value is None or (SMTP_URL.fullmatch(url := value.get_secret_value()) and urlsplit(url).port != 0):
                return value
        msg = "expected smtp://user:password@host:port or smtps://…, with / ? # in the password as %2F %3F %23"
        raise ValueError(msg)

    @field_validator("database_url")
    @classmethod
    def _one_dialect(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("postgresql://", "postgresql+psycopg://")):
            msg = "expected postgresql+psycopg://user@host/name"
            raise ValueError(msg)
        return value.replace("postgresql://", "postgresql+psycopg://", 1) if value else value

    @field_validator("broker_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("redis://", "rediss://", "redis+socket://")):
            msg = "expected redis://host:port/number"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _lease_outlasts_a_call(self) -> Settings:
        # One charge makes a guard read of two requests and up to three tries of one: all must fit into the lease.
        if self.lease_seconds < 5 * (self.connect_seconds + self.read_seconds + LONGEST_WAIT):
            limits = f"DUNNING_CONNECT_SECONDS + DUNNING_READ_SECONDS + {LONGEST_WAIT:g}"
            msg = f"DUNNING_LEASE_SECONDS: expected at least 5 times ({limits})"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _real_money_is_meant(self) -> Settings:
        if self.clock_file is not None and self.live_key:
            msg = "DUNNING_CLOCK_FILE: a stepped clock is for practice and is refused with a live key"
            raise ValueError(msg)
        if self.mode == "live" and self.live_key and self.live_switch != "on":
            msg = "DUNNING_LIVE_SWITCH: a live key in live mode charges real customers; set it to on if that is meant"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _stripe_is_quiet(self) -> Settings:
        # The SDK prints past every filter: requests, and whole answers with names and addresses.
        if os.environ.get("STRIPE_LOG") == "debug" and (self.mode == "live" or self.live_key):
            msg = "STRIPE_LOG: debug prints customers' data and is refused in live mode and with a live key; unset it"
            raise ValueError(msg)
        return self

    @property
    def live_key(self) -> bool:
        """Whether the key moves real money."""
        return self.stripe_api_key is not None and "_live_" in self.stripe_api_key.get_secret_value()


def _is_key(secret: str) -> bool:
    """Whether a secret has the form that Standard Webhooks asks for."""
    with suppress(ValueError):
        return secret.startswith("whsec_") and 24 <= len(b64decode(secret[6:], validate=True)) <= 64  # noqa: PLR2004
    return False


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return the settings of this process; raise ``SettingsError`` naming every variable that is wrong."""
    try:
        given: Any = _from_files()
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError("; ".join(_lines(error))) from None


def _from_files() -> dict[str, str]:
    found = {}
    for name in Settings.model_fields:
        variable = f"{PREFIX}{name.upper()}"
        if path := os.environ.get(f"{variable}_FILE"):
            try:
                found[name] = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                msg = f"{variable}_FILE: cannot read {path}: {type(error).__name__}"
                raise SettingsError(msg) from None
    return found


def _lines(error: ValidationError) -> list[str]:
    """Name each wrong variable and what was expected; the value itself may be a secret and is left out."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        variable = f"{PREFIX}{str(problem['loc'][0]).upper()}: " if problem["loc"] else ""
        lines.append(variable + problem["msg"].removeprefix("Value error, "))
    return lines

"""What in the provider's objects names a person, finds one, or lets somebody pay? It is neither stored nor logged."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

WHOSE = ("", "billing_", "business_", "cardholder_", "customer_", "individual_", "payer_", "shipping_", "verified_")
WHAT = ("address", "email", "name", "phone", "shipping", "tax_ids")
PERSONAL = frozenset(f"{whose}{what}" for whose in WHOSE for what in WHAT) | {
    "billing_details",
    "bsb_number",
    "city",
    "client_secret",
    "comment",
    "custom_fields",
    "customer_acceptance",
    "description",
    "evidence",
    "footer",
    "ip_address",
    "line1",
    "line2",
    "message",
    "nickname",
    "postal_code",
    "receipt_email",
    "routing_number",
    "seller_message",
    "sort_code",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "user_agent",
}
MARK = "dunning"  # the one key of metadata that is read
# Ids, codes and versions. Sentences, addresses and links to pages are none.
CODE = re.compile(r"[\w.:-]{1,255}", re.ASCII)
IS_CODE = CODE.fullmatch
PLAIN = frozenset((int, bool, type(None)))  # which say nothing of a person
DEEPEST = 50  # levels of a payload; what writes it down calls itself for each


def impersonal(value: Any, levels: int = DEEPEST) -> Any:
    """Return a payload without what is personal: by the name of its field, or because its text is no id and no code.

    What is left out is read from the provider when it is needed. Raises ``ValueError`` for what no database takes:
    values within each other on more than so many levels, and numbers that are not finite.
    """
    if isinstance(value, str):
        return value if IS_CODE(value) else None
    if isinstance(value, dict | list) and not levels:
        msg = f"nested deeper than {DEEPEST} levels"
        raise ValueError(msg)
    if isinstance(value, dict):
        levels -= 1
        return {
            key: item if type(item) in PLAIN and key not in PERSONAL else _field(key, item, levels)
            for key, item in value.items()
            if _is_name(key)
        }
    if isinstance(value, list):
        return [impersonal(item, levels - 1) for item in value]
    if isinstance(value, float) and value - value != 0:
        msg = "contains a number that is not finite"
        raise ValueError(msg)
    return value


@lru_cache(maxsize=4096)
def _is_name(key: str) -> bool:
    """Whether a field may keep its name; objects of a kind have the same ones."""
    return IS_CODE(key) is not None


def _field(key: str, item: Any, levels: int) -> Any:
    if key in PERSONAL:
        return None
    if key == "metadata":
        return {MARK: impersonal(item[MARK], levels)} if isinstance(item, dict) and MARK in item else {}
    return impersonal(item, levels)

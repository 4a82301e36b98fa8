"""What in the provider's objects names a person, finds one, or lets somebody pay? It is neither stored nor logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
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


def impersonal(value: Any) -> Any:
    """Return a payload without what is personal: by the name of its field, or because its text is no id and no code.

    What is left out is read from the provider when it is needed.
    """
    if isinstance(value, Mapping):
        return {key: _field(key, item) for key, item in value.items() if CODE.fullmatch(key)}
    if isinstance(value, list):
        return [impersonal(item) for item in value]
    return None if isinstance(value, str) and not CODE.fullmatch(value) else value


def _field(key: str, item: Any) -> Any:
    if key == "metadata":
        return {MARK: impersonal(item[MARK])} if isinstance(item, Mapping) and MARK in item else {}
    return None if key in PERSONAL else impersonal(item)

"""What the gateway asks of an identity provider: that it log somebody in (SAML core 3.4, bindings 3.4 and 3.5).

Requests are not signed: what matters in one, the address that the response goes to, the provider knows from the
gateway's metadata.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lxml import etree

from holdfast.identity.saml.document import ASSERTION, POST_BINDING, PROTOCOL

if TYPE_CHECKING:
    from holdfast.settings.saml import SAMLProvider

MAX_RELAY_STATE_BYTES = 80
"""Bindings 3.4.3 and 3.5.3: no more need be given back."""

_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Form:
    """What a browser posts: the address, and the fields by name. Escape both for HTML."""

    action: str
    fields: Mapping[str, str]


def redirect_url(provider: SAMLProvider, request_id: str, issued_at: float, relay_state: str) -> str:
    """Where to send the browser (HTTP-Redirect). Arguments are those of `post_form`."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    request = compressor.compress(_build_request(provider, request_id, issued_at)) + compressor.flush()
    url = provider.single_sign_on_url
    return f"{url}{'&' if '?' in url else '?'}{urlencode(_fields(request, relay_state))}"


def post_form(provider: SAMLProvider, request_id: str, issued_at: float, relay_state: str) -> Form:
    """What the browser must post (HTTP-POST), in a form that submits itself.

    `request_id` begins with a letter or `_`, and nobody can guess it (128 random bits or more); the response must
    answer it. `issued_at` is in seconds since the epoch. `relay_state` comes back with the response, unsigned: at most
    80 bytes, or none when empty. Raises ValueError for an ID or a state that cannot be sent.
    """
    request = _build_request(provider, request_id, issued_at)
    return Form(provider.single_sign_on_url, _fields(request, relay_state))


def _fields(request: bytes, relay_state: str) -> dict[str, str]:
    if len(relay_state.encode()) > MAX_RELAY_STATE_BYTES:
        raise ValueError(f"a RelayState of at most {MAX_RELAY_STATE_BYTES} bytes")
    fields = {"SAMLRequest": base64.b64encode(request).decode()}
    return fields | {"RelayState": relay_state} if relay_state else fields


def _build_request(provider: SAMLProvider, request_id: str, issued_at: float) -> bytes:
    if _ID.fullmatch(request_id) is None:
        raise ValueError("a request ID that begins with a letter or _")
    request = etree.Element(
        f"{PROTOCOL}AuthnRequest",
        {
            "ID": request_id,
            "Version": "2.0",
            "IssueInstant": datetime.fromtimestamp(issued_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Destination": provider.single_sign_on_url,
            "ProtocolBinding": POST_BINDING,
            "AssertionConsumerServiceURL": provider.assertion_consumer_service_url,
        },
        nsmap={"samlp": PROTOCOL.strip("{}"), "saml": ASSERTION.strip("{}")},
    )
    etree.SubElement(request, f"{ASSERTION}Issuer").text = provider.service_provider_entity_id
    if provider.name_id_format is not None:
        policy = {"Format": provider.name_id_format, "AllowCreate": "true"}
        etree.SubElement(request, f"{PROTOCOL}NameIDPolicy", policy)
    return etree.tostring(request)

"""What the values of `identity` must be like, each by itself: addresses, certificates, keys of `extra`, lists.

As k8s.io/apiserver pkg/apis/apiserver/validation has them. All raise ValueError, which says what is expected.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography import x509

from holdfast.settings.section import Misfit

if TYPE_CHECKING:
    from collections.abc import Iterable

KUBERNETES_DOMAINS = ("kubernetes.io", "k8s.io")
OWN_DOMAIN = "holdfast.dev"
"""Its keys are the gateway's to fill: an issuer that could would speak for it (`holdfast.credential.impersonation`)."""


_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_EXTRA_KEY = re.compile(rf"(?P<domain>{_SUBDOMAIN})/[a-z0-9/\-._~%!$&'()*+,;=:]+")


def require_once(place: str, values: Iterable[str | None], expected: str) -> None:
    """Raise Misfit for the first value that comes again; `place` has {} where its number goes. Empty ones may."""
    seen: set[str] = set()
    for number, value in enumerate(values):
        if value in seen:
            raise Misfit(place.format(number), value, expected)
        if value:
            seen.add(value)


def check_extra_key(key: str) -> None:
    match = _EXTRA_KEY.fullmatch(key)
    if match is None:
        raise ValueError("lower-case DOMAIN/PATH, as example.com/tenant")
    if any(f".{match['domain']}".endswith(f".{domain}") for domain in (*KUBERNETES_DOMAINS, OWN_DOMAIN)):
        raise ValueError("a domain of your own; kubernetes.io and k8s.io are Kubernetes', holdfast.dev is ours")


def check_secure(url: str) -> None:
    check_url(url)
    if not url.startswith("https://"):
        raise ValueError("an https:// address")


def check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.port == 0:
        raise ValueError("an https:// address")
    if "@" in parts.netloc:
        raise ValueError("an address without a user name or password")
    if "?" in url or "#" in url:
        raise ValueError("an address without a query or fragment")


def check_certificates(pem: str) -> None:
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise ValueError("certificates in PEM") from error

"""Every way to say in a header who one is: one table for every protocol and every kind of gateway."""

from __future__ import annotations

import re

CLAIMS: list[tuple[bytes, bytes]] = [
    # What the API server takes from whoever may impersonate
    (b"Impersonate-User", b"system:admin"),
    (b"impersonate-user", b"agent"),
    (b"iMpErSoNaTe-UsEr", b"system:admin"),
    (b"impersonate-group", b"system:masters"),
    (b"IMPERSONATE-GROUP", b"agents"),
    (b"Impersonate-Uid", b"1"),
    (b"IMPERSONATE-EXTRA-scopes", b"x"),
    (b"Impersonate-Extra-Holdfast.dev%2Fissuer", b"https://other.test"),
    (b"Impersonate-Anything", b"x"),
    # What it takes from a front proxy
    (b"X-Remote-User", b"admin"),
    (b"x-remote-user", b"admin"),
    (b"X-REMOTE-GROUP", b"system:masters"),
    (b"X-Remote-Uid", b"1"),
    (b"X-Remote-Extra-Scopes", b"x"),
    (b"X-Forwarded-Client-Cert", b"Subject=CN=system:admin"),
    # What some server reads as one of these
    (b"Impersonate_User", b"system:admin"),
    (b"impersonate_group", b"system:masters"),
    (b"X_Remote_User", b"admin"),
    (b"X-Remote_User", b"admin"),
    (b"Impersonate-User ", b"system:admin"),
    (b"Impersonate-User\t", b"system:admin"),
    (b" Impersonate-User", b"system:admin"),
    (b"\tX-Remote-User", b"admin"),
    (b"Impersonate-User\x00", b"system:admin"),
    (b"Impersonate\xadUser", b"system:admin"),
    # What hides one of these in another
    (b"X-A", b"one\r\n Impersonate-User: system:admin"),
    (b"X-A", b"one\r\n\tImpersonate-User: system:admin"),
    (b"X-A", b"one\r\nImpersonate-User: system:admin"),
    (b"X-A", b"one\rImpersonate-User: system:admin"),
    (b"X-A", b"one\nX-Remote-User: admin"),
    (b"X-A", b"nul\x00nul"),
    # What a hop would take away, so that the next sees another
    (b"Connection", b"Impersonate-User"),
    (b"Connection", b"close, Authorization"),
    (b"Trailer", b"Impersonate-User"),
    # A second word on who it is
    (b"Authorization", b"Bearer other"),
    (b"authorization", b""),
    (b"AUTHORIZATION", b"Basic YTpi"),
]


def line(claim: tuple[bytes, bytes]) -> bytes:
    """The claim as HTTP/1.1 writes it."""
    name, value = claim
    return name + b": " + value + b"\r\n"


def is_proper(claim: tuple[bytes, bytes]) -> bool:
    """Whether HTTP/2 lets it be sent at all (RFC 9113 section 8.2): a small name, a clean value."""
    name, value = claim
    is_name = re.fullmatch(rb"[a-z0-9_.%-]+", name) is not None and name != b"connection"
    return is_name and not set(value) & {0, 10, 13}

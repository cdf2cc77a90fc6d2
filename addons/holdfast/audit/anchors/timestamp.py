"""RFC 3161: a time-stamping authority signs that the checkpoint existed at a time of its own clock.

The token is over SHA-256 of the whole signed note. What the authority answered is kept as it came, beside the note
(see `layout`), so that anybody can check the pair, with `verify_reply` or with

    openssl ts -verify -data NOTE.checkpoint -in NOTE.tsr -CAfile CA

A reply is kept only when all of it is right: granted, our nonce, our digest, a signature that leads to the given
authority, by a certificate made for time-stamping and for nothing that its critical extension does not name.
"""

from __future__ import annotations

import secrets
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
from cryptography import x509
from rfc3161_client import (
    HashAlgorithm,
    PKIStatus,
    TimestampRequestBuilder,
    VerificationError,
    VerifierBuilder,
    decode_timestamp_response,
)

from holdfast.audit.anchors.layout import TIMESTAMP_REPLY, checkpoint_path
from holdfast.audit.checkpoint import parse_checkpoint
from holdfast.certificates import find_certificate_error, write_private
from holdfast.clients import NEARBY
from holdfast.errors import ConfigurationError, HoldfastError, Unavailable
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from rfc3161_client import TimeStampResponse

    from holdfast.settings.audit import Timestamp

TIMEOUT_SECONDS = 10
LARGEST_REPLY = 1 << 18
QUERY_TYPE = "application/timestamp-query"
_CERTIFICATES = 0xA0


class BadTimestamp(HoldfastError):
    """A reply does not prove that the authority saw the note."""


class TimestampAnchor:
    """Has checkpoints time-stamped and keeps both in a folder. Blocking."""

    def __init__(
        self,
        url: str,
        authority: Sequence[x509.Certificate],
        folder: Path,
        client: httpx.Client,
        interval_seconds: float,
    ) -> None:
        self.name = "timestamp"
        self.interval_seconds = interval_seconds
        self._url = url
        self._authority = authority
        self._folder = folder
        self._client = client

    def check(self) -> None:
        """See that the authority stamps something that means nothing, and can be believed. Raises Unavailable."""
        self._ask(secrets.token_hex(32))

    def publish(self, note: str) -> None:
        """Return when the token is verified and on the disk. Raises Unavailable."""
        checkpoint, _ = parse_checkpoint(note)
        file = self._folder / checkpoint_path(checkpoint)
        reply_file = file.with_suffix(TIMESTAMP_REPLY)
        if reply_file.exists():
            return
        reply = self._ask(note)
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(file, note.encode())
            write_private(reply_file, reply)
        except OSError as error:
            raise Unavailable(f"{self._folder}: cannot be written: {error.strerror}") from error

    def _ask(self, text: str) -> bytes:
        """The authority's reply over a text, verified. Raises Unavailable."""
        request = TimestampRequestBuilder(text.encode(), HashAlgorithm.SHA256).build()
        try:
            reply = self._post(request.as_bytes())
            verify_reply(reply, text, self._authority, request.nonce)
        except (httpx.HTTPError, httpx.InvalidURL, BadTimestamp) as error:
            raise Unavailable(f"{self._url}: {_explain(error)}") from error
        return reply

    def _post(self, query: bytes) -> bytes:
        headers = {"Content-Type": QUERY_TYPE, "Accept-Encoding": "identity"}
        with self._client.stream("POST", self._url, content=query, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise BadTimestamp(f"answered {response.status_code}, expected 200")
            reply = b""
            for chunk in response.iter_raw():
                reply += chunk
                if len(reply) > LARGEST_REPLY:
                    raise BadTimestamp(f"answered more than {LARGEST_REPLY} bytes")
        return reply


def open_timestamp(settings: Timestamp) -> TimestampAnchor:
    """Make the anchor that the settings ask for. Raises ConfigurationError."""
    authority = load_authority(settings.certificate_authority)
    trust = ssl.create_default_context()
    trust.load_verify_locations(settings.certificate_authority)
    client = httpx.Client(verify=trust, timeout=TIMEOUT_SECONDS, mounts=NEARBY)
    return TimestampAnchor(settings.url, authority, settings.folder, client, settings.interval_seconds)


def load_authority(file: Path) -> list[x509.Certificate]:
    """Read the authority's root and what stands between it and the signing certificate. Raises ConfigurationError."""
    try:
        certificates = x509.load_pem_x509_certificates(read_file(file))
    except ValueError as error:
        raise ConfigurationError(f"{file}: cannot be read; expected certificates in PEM.") from error
    if not any(_is_root(certificate) for certificate in certificates):
        raise ConfigurationError(f"{file}: holds no root; expected the certificate that ends the chain, too.")
    return certificates


def verify_reply(reply: bytes, note: str, authority: Sequence[x509.Certificate], nonce: int | None = None) -> datetime:
    """Return when the authority saw the note, by its own clock; who made the request asks for its nonce, too.

    Raises BadTimestamp.
    """
    response, at = parse_reply(reply)
    builder = VerifierBuilder(
        roots=[certificate for certificate in authority if _is_root(certificate)],
        intermediates=[certificate for certificate in authority if not _is_root(certificate)],
        nonce=nonce,
    )
    try:
        builder.build().verify_message(response, note.encode())
    except (VerificationError, ValueError) as error:
        raise BadTimestamp(f"the time-stamping authority's reply does not hold: {error!s:.200}") from error
    return at


def parse_reply(reply: bytes) -> tuple[TimeStampResponse, datetime]:
    """Read a reply that holds a token, and the time it tells; nothing in it is verified. Raises BadTimestamp."""
    try:
        response = decode_timestamp_response(_sort_certificates(reply))
        if response.status != PKIStatus.GRANTED:
            said = "; ".join(response.status_string) or "no reason"
            raise BadTimestamp(f"the time-stamping authority refused (status {response.status}): {said:.200}")
        return response, response.tst_info.gen_time
    except ValueError as error:
        raise BadTimestamp(f"the time-stamping authority's reply cannot be read: {error!s:.200}") from error


def _sort_certificates(reply: bytes) -> bytes:
    """Put the certificates of a reply in DER's order, by their bytes (X.690 section 11.6).

    OpenSSL and what is built on it leave them as they come, which the library refuses. No signature is over them.
    A reply that is not as expected is returned as it is, for the library to refuse.
    """
    try:
        (response,) = _read_elements(reply, 0, len(reply))
        _, token = _read_elements(reply, response.content, response.end)
        _, content = _read_elements(reply, token.content, token.end)
        (signed_data,) = _read_elements(reply, content.content, content.end)
        for element in _read_elements(reply, signed_data.content, signed_data.end):
            if element.tag == _CERTIFICATES:
                certificates = _read_elements(reply, element.content, element.end)
                in_order = sorted(reply[certificate.start : certificate.end] for certificate in certificates)
                return reply[: element.content] + b"".join(in_order) + reply[element.end :]
    except (IndexError, ValueError):
        pass
    return reply


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of BER: where it starts, where its content does, where both end."""

    tag: int
    start: int
    content: int
    end: int


def _read_elements(der: bytes, start: int, end: int) -> list[_Element]:
    """Split what stands from `start` to `end`. Raises ValueError, IndexError."""
    elements: list[_Element] = []
    while start < end:
        length, content = der[start + 1], start + 2
        if length & 0x80:
            content += length & 0x7F
            length = int.from_bytes(der[start + 2 : content], "big")
        if content + length > end:
            raise ValueError("an element is longer than what holds it")
        elements.append(_Element(der[start], start, content, content + length))
        start = content + length
    return elements


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.issuer == certificate.subject


def _explain(error: Exception) -> str:
    certificate = find_certificate_error(error)
    if certificate is not None:
        return f"its certificate is not trusted ({certificate.verify_message})"
    if isinstance(error, httpx.TimeoutException):
        return f"did not answer within {TIMEOUT_SECONDS} s"
    return str(error) or type(error).__name__

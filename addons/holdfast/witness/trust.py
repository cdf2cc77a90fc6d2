"""Which keys sign for which log.

A log is known when its key is pinned, or when a pinned root has certified a key for its replica. Certificates are
learned while the witness runs, and kept (see `state`); a root that is pinned no longer vouches for none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.audit.keys import Certificate, parse_certificate
from holdfast.audit.note import ED25519, BadNote, Note, Verifier, find_signature, is_signed_by, parse_note, write_note
from holdfast.errors import BadRequest, ConfigurationError, Forbidden, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from holdfast.audit.checkpoint import Origin


class Trust:
    """What the witness trusts. Raises ConfigurationError when that is nothing.

    Any thread may call `find_verifiers` at any time; `learn` and `recall` are for one thread at a time: the server
    recalls before it serves, `Witness` learns under its lock.
    """

    def __init__(self, roots: Sequence[Verifier], logs: Sequence[Verifier]) -> None:
        if not roots and not logs:
            raise ConfigurationError("the witness trusts nobody: give --root or --log.")
        for verifier in (*roots, *logs):
            if verifier.key_type != ED25519:
                raise ConfigurationError(f"{verifier.name}: is the key of a witness; expected a root's or a log's.")
        self._roots = tuple(roots)
        self._logs = tuple(logs)
        self._certificates: tuple[Certificate, ...] = ()

    def learn(self, text: str, now: datetime) -> str:
        """Take in a certificate; return what to keep of it for `recall`: its text and the root's signature.

        Raises BadRequest, Forbidden when no root signed it or it is not valid now.
        """
        certificate, root = self._read(text)
        if not certificate.is_valid_at(now):
            raise Forbidden("the certificate is not valid at this time")
        self._add(certificate)
        note = parse_note(text)
        return write_note(Note(note.text, tuple(filter(None, [find_signature(note, root)]))))

    def recall(self, text: str) -> None:
        """Take in a certificate that was learned earlier. Raises BadRequest, Forbidden when no root signed it."""
        self._add(self._read(text)[0])

    def find_verifiers(self, origin: Origin, now: datetime) -> list[Verifier]:
        """The keys that sign for this log now, perhaps none. Raises NotFound when the log is not known at all."""
        pinned = [verifier for verifier in self._logs if verifier.name == origin]
        certificates = [certificate for certificate in self._certificates if certificate.covers(origin)]
        if not pinned and not certificates:
            raise NotFound(f"this witness does not know the log {origin}")
        valid = [certificate.verifier_for(origin) for certificate in certificates if certificate.is_valid_at(now)]
        return [*pinned, *valid]

    def _read(self, text: str) -> tuple[Certificate, Verifier]:
        try:
            note = parse_note(text)
            root = next((root for root in self._roots if is_signed_by(note, root)), None)
            if root is not None:
                return parse_certificate(text, root), root
        except BadNote as error:
            raise BadRequest(str(error)) from error
        raise Forbidden("the certificate carries no good signature of a root key that this witness trusts")

    def _add(self, certificate: Certificate) -> None:
        if certificate not in self._certificates:
            self._certificates = (*self._certificates, certificate)

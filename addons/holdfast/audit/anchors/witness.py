"""A witness (C2SP tlog-witness) cosigns a checkpoint when the log only grew since the one it cosigned before.

The client asks from the size at which it believes the witness to be, and again from the one that the witness names.
A witness that does not know the log is shown the certificate of its key, once. Nothing that a witness answers is
believed but a size to ask from again, and a cosignature that verifies: it must be the known key's, over the very
checkpoint that was sent.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from holdfast.audit.anchors.publisher import Contradicted
from holdfast.audit.anchors.submission import SIZE_TYPE, Submission, write_submission
from holdfast.audit.checkpoint import Origin, cosigned_at, parse_checkpoint, parse_size
from holdfast.audit.note import (
    COSIGNATURE,
    LARGEST_NOTE,
    BadNote,
    Note,
    Signature,
    Verifier,
    parse_signature,
    parse_verifier,
    write_note,
)
from holdfast.clients import NEARBY
from holdfast.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.audit.anchors.source import TreeSource
    from holdfast.audit.checkpoint import Checkpoint
    from holdfast.settings.audit import Witness

TIMEOUT_SECONDS = 10
MOST_ATTEMPTS = 4
"""Another process may get ahead between two attempts; who loses so often lets the next look try again."""

HEADERS = {"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a witness answered: the status, the media type and no more of the body than is ever needed."""

    status: int
    media_type: str
    body: str


class WitnessAnchor:
    """Has checkpoints cosigned. Blocking; for one thread. `keep` gets every cosigned note."""

    def __init__(
        self, url: str, witness: Verifier, source: TreeSource, client: httpx.Client, keep: Callable[[str], None]
    ) -> None:
        self.name = f"witness {witness.name}"
        self.interval_seconds = 0.0
        self._url = url.rstrip("/")
        self._witness = witness
        self._source = source
        self._client = client
        self._keep = keep
        self._sizes: dict[Origin, int] = {}

    def publish(self, note: str) -> None:
        """Return when the checkpoint is cosigned and kept. Raises Unavailable, Contradicted."""
        cosignature = self.submit(note)
        signed = parse_checkpoint(note)[1]
        self._keep(write_note(Note(signed.text, (*signed.signatures, cosignature))))

    def submit(self, note: str) -> Signature:
        """Return the witness's cosignature of a checkpoint. Raises Unavailable, Contradicted."""
        checkpoint, signed = parse_checkpoint(note)
        old_size = self._sizes.get(checkpoint.origin, 0)
        introduced = False
        for _ in range(MOST_ATTEMPTS):
            answer = self._post("add-checkpoint", write_submission(self._prepare(checkpoint, old_size, note)))
            if answer.status == httpx.codes.OK:
                cosignature = find_cosignature(answer, signed, self._witness)
                self._sizes[checkpoint.origin] = checkpoint.size
                return cosignature
            if answer.status in {httpx.codes.NOT_FOUND, httpx.codes.FORBIDDEN} and not introduced:
                self._introduce(checkpoint.origin)
                introduced = True
            elif (size := find_size(answer)) is not None:
                old_size = size
            else:
                raise explain(answer, self.name)
        raise Unavailable(f"{self.name} named a size {MOST_ATTEMPTS} times, and another when it was asked from there")

    def _prepare(self, checkpoint: Checkpoint, old_size: int, note: str) -> Submission:
        if old_size > checkpoint.size:
            raise Contradicted(
                f"{self.name} has cosigned {checkpoint.origin} at size {old_size}, which is {checkpoint.size} here: "
                "the log was cut, or another process writes it"
            )
        if old_size in {0, checkpoint.size}:
            return Submission(old_size, (), note)
        return Submission(old_size, tuple(self._source.consistency(checkpoint.origin, old_size, checkpoint.size)), note)

    def _introduce(self, origin: Origin) -> None:
        certificate = self._source.certificate(origin)
        if not certificate:
            raise Unavailable(f"{self.name} does not know {origin}, whose key nobody certified")
        answer = self._post("add-certificate", certificate)
        if answer.status != httpx.codes.OK:
            raise explain(answer, self.name)

    def _post(self, call: str, text: str) -> Answer:
        try:
            with self._client.stream("POST", f"{self._url}/{call}", content=text.encode(), headers=HEADERS) as response:
                body = b""
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > LARGEST_NOTE:
                        raise Unavailable(f"{self.name} answers with more than {LARGEST_NOTE} bytes")
                return Answer(
                    response.status_code, response.headers.get("Content-Type", ""), body.decode("utf-8", "replace")
                )
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.name} does not answer: {error or type(error).__name__}") from error


def find_cosignature(answer: Answer, signed: Note, witness: Verifier) -> Signature:
    """The witness's good cosignature among the lines that it answered. Raises Unavailable."""
    try:
        if not answer.body.endswith("\n"):
            raise BadNote("the last line of the answer has no end")
        lines = [parse_signature(line) for line in answer.body[:-1].split("\n")]
    except BadNote as error:
        raise Unavailable(f"the witness {witness.name} does not answer with signatures: {error}") from error
    for signature in lines:
        if cosigned_at(Note(signed.text, (signature,)), witness) is not None:
            return signature
    raise Unavailable(f"the witness {witness.name} answers without a good cosignature of its key")


def find_size(answer: Answer) -> int | None:
    """The size that a witness names as the one to prove growth from; None when it names none."""
    if answer.status != httpx.codes.CONFLICT or answer.media_type != SIZE_TYPE or not answer.body.endswith("\n"):
        return None
    try:
        return parse_size(answer.body[:-1])
    except BadNote:
        return None


def explain(answer: Answer, name: str) -> Unavailable:
    """The error that an answer other than 200 means."""
    said = answer.body.partition("\n")[0][:200]
    message = f"{name} answers {answer.status}: {said if said.isprintable() else repr(said)}"
    contradicts = answer.status in {httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY}
    return Contradicted(message) if contradicts else Unavailable(message)


def open_witness(settings: Witness, source: TreeSource, keep: Callable[[str], None]) -> WitnessAnchor:
    """Make the anchor that the settings ask for. Raises ConfigurationError."""
    return WitnessAnchor(settings.url, parse_key(settings), source, open_client(settings), keep)


def parse_key(settings: Witness) -> Verifier:
    """The witness's key in the settings. Raises ConfigurationError."""
    try:
        witness = parse_verifier(settings.public_key)
    except BadNote as error:
        raise ConfigurationError(f"audit.anchors.witnesses.publicKey: {error}.") from error
    if witness.key_type != COSIGNATURE:
        raise ConfigurationError(
            f"audit.anchors.witnesses.publicKey: is no witness's key; `holdfast witness keys` prints {witness.name}'s."
        )
    return witness


def open_client(settings: Witness) -> httpx.Client:
    """Make the client that asks this witness. Raises ConfigurationError."""
    authority = settings.certificate_authority
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{authority}: is not a CA certificate (PEM): {error}.") from error
    return httpx.Client(verify=context, timeout=TIMEOUT_SECONDS, mounts=NEARBY)

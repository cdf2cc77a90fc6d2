"""Large payloads beside the database: a folder, or a bucket of any S3 server, through obstore.

A piece (see `payload`) is kept under `DAY/FIRST TWO DIGITS/SHA-256`, as its blob's row says (`codec`), before the
transaction that refers to it ends; a transaction that then fails leaves a piece that nobody refers to, which the
next one of the same content finds or retention removes with its day. What comes back is not trusted: the verifier
holds it against its name. A bucket that keeps versions keeps what was erased, too.

The keys to a bucket are read from their files again while it is used, so that they can be rotated.

An operation ends within the deadline: a request gets most of it, and what fails fast is tried again only while there
is enough left for another.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from holdfast.audit.payload import PIECE_BYTES
from holdfast.audit.s3 import first_line, read_key
from holdfast.errors import ConfigurationError, NotFound, Unavailable
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from obstore.store import S3Credential

    from holdfast.settings.audit import Payloads

_OPEN = os.O_RDONLY | os.O_NONBLOCK
_NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
"""Nothing is there, a file is in the folder's place, a link or a socket is in the piece's."""

PARALLEL = 8
PAGE = 1000
CHECK_DAY = "0001-01-01"
"""Where `check` puts its piece: a day that no record has."""

EXPECTED = "expected a bucket that is there, and a key that may GetObject, PutObject, DeleteObject and ListBucket"
_DAY = re.compile(r"(erasing-)?\d{4}-\d{2}-\d{2}", re.ASCII)
"""Pieces of a day, and the marks of those that are being erased (see `store.retention`)."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+/?")
_ANSWER = re.compile(r"<Code>(\w{1,64})</Code>")
_REASONS = (
    (re.compile(r"credential provider: (ConfigurationError)"), "its keys cannot be read from their files"),
    (_ANSWER, "the server answers {}"),
    (re.compile(r"InvalidCertificate\(\s*(\w+)"), "the server's certificate is not trusted ({})"),
    (re.compile(r"kind: (Timeout)"), "the server does not answer in time"),
    (re.compile(r"kind: (Connect)"), "the server cannot be reached"),
    (re.compile(r"status code: (\d{3})"), "the server answers {}"),
)
"""What the library's errors say somewhere in their text, and how it is told."""


class ObjectPieces:
    """Pieces in one folder or bucket. Blocking; safe to use from several threads."""

    def __init__(self, store: LocalStore | S3Store, inline_bytes: int, folder: Path | None = None) -> None:
        self._store = store
        self._inline_bytes = inline_bytes
        self._folder = folder
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="holdfast-pieces")

    def takes(self, kept: bytes) -> bool:
        """Whether a piece that is kept as these bytes is large enough for this store."""
        return len(kept) > self._inline_bytes

    def put(self, day: str, pieces: Mapping[str, bytes]) -> None:
        """Keep pieces by their SHA-256; returns when all of them are durable. Raises Unavailable."""
        with _unavailable("kept"):
            self._each(lambda piece: self._put_one(day, *piece), pieces.items())

    def get(self, day: str, sha256: str) -> bytes:
        """Return a piece as it is kept. Raises NotFound, Unavailable."""
        path = _path(day, sha256)
        with _unavailable("read"):
            size, kept = self._fetch(path) if self._folder is None else _read_piece(self._folder / path)
        if size > PIECE_BYTES:
            raise NotFound(f"what the object store has as payload {day}/{sha256} is too long to be one")
        if kept is None:
            raise NotFound(f"payload {day}/{sha256} is not in the object store")
        return kept

    def delete(self, day: str, digests: Sequence[str]) -> None:
        """Remove pieces; one that is not there is no error. Raises Unavailable."""
        with _unavailable("removed"):
            self._each(lambda digest: self._delete_one(day, digest), digests)

    def days(self) -> list[str]:
        """The days that have pieces here, whether or not anything refers to them. Raises Unavailable."""
        with _unavailable("listed"):
            return sorted(str(path) for path in self._store.list_with_delimiter()["common_prefixes"])

    def digests(self, day: str) -> Iterator[list[str]]:
        """Yield the SHA-256 of every piece of a day, a page at a time. Raises Unavailable."""
        with _unavailable("listed"):
            for page in self._store.list(day, chunk_size=PAGE):
                yield [str(found["path"]).rpartition("/")[2] for found in page]

    def size_of(self, day: str) -> int:
        """What the pieces of a day take, as the store tells it. Raises Unavailable."""
        with _unavailable("listed"):
            return sum(int(found["size"]) for page in self._store.list(day, chunk_size=PAGE) for found in page)

    def check(self) -> None:
        """Write, read and remove a piece that means nothing. Raises ConfigurationError."""
        digest, content = secrets.token_hex(32), b"holdfast"
        try:
            self.put(CHECK_DAY, {digest: content})
            kept = self.get(CHECK_DAY, digest)
            self.delete(CHECK_DAY, [digest])
        except (NotFound, Unavailable) as error:
            raise ConfigurationError(f"audit.payloads: {error}{self._advice}.") from error
        if kept != content:
            raise ConfigurationError("audit.payloads: the object store does not give back what it was given.")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    @property
    def _advice(self) -> str:
        return f"; {EXPECTED}" if isinstance(self._store, S3Store) else ""

    def _each[T](self, act: Callable[[T], None], items: Iterable[T]) -> None:
        """Act on all of them, several at a time; after one has failed no other is begun."""
        has_failed = Event()

        def act_on(item: T) -> None:
            if has_failed.is_set():
                return
            try:
                act(item)
            except BaseException:
                has_failed.set()
                raise

        for _ in self._threads.map(act_on, items):
            pass

    def _fetch(self, path: str) -> tuple[int, bytes | None]:
        """The size of an object, and, unless it is too long, its bytes; None where there is no such object."""
        try:
            found = self._store.get(path)
        except FileNotFoundError as error:
            if _answer(error) in {"", "NoSuchKey"}:
                return 0, None
            raise
        size = found.meta["size"]
        return size, bytes(found.bytes()) if size <= PIECE_BYTES else None

    def _put_one(self, day: str, sha256: str, kept: bytes) -> None:
        path = _path(day, sha256)
        self._store.put(path, kept, use_multipart=False)
        if self._folder is not None:
            _make_durable(self._folder, path)

    def _delete_one(self, day: str, sha256: str) -> None:
        try:
            self._store.delete(_path(day, sha256))
        except NotFound:
            return
        except FileNotFoundError as error:
            if _answer(error) not in {"", "NoSuchKey"}:
                raise


def open_pieces(settings: Payloads, deadline_seconds: float) -> ObjectPieces | None:
    """Open what `audit.payloads` names; None when payloads stay in the database. Raises ConfigurationError."""
    if settings.folder is not None:
        return _open_folder(settings.folder, settings.inline_bytes)
    if settings.bucket is not None:
        return ObjectPieces(_open_bucket(settings, deadline_seconds), settings.inline_bytes)
    return None


def _open_folder(folder: Path, inline_bytes: int) -> ObjectPieces:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"audit.payloads.folder: {folder}: cannot be made: {error.strerror}.") from error
    store = LocalStore(folder, automatic_cleanup=True)
    return ObjectPieces(store, inline_bytes, folder)


def _open_bucket(settings: Payloads, deadline_seconds: float) -> S3Store:
    _require(settings.bucket, _BUCKET, "bucket", "the name of a bucket")
    _require(settings.endpoint, _ENDPOINT, "endpoint", "https://HOST:PORT")
    patience = timedelta(seconds=deadline_seconds)
    client: dict[str, Any] = {"timeout": patience * 0.75, "allow_http": (settings.endpoint or "").startswith("http://")}
    if settings.certificate_authority is not None:
        client["root_certificate"] = read_file(settings.certificate_authority)
    options = {"region": settings.region, "endpoint": settings.endpoint, "credential_provider": _open_keys(settings)}
    try:
        return S3Store(
            str(settings.bucket),
            prefix=settings.prefix or None,
            client_options=client,  # type: ignore[arg-type]  # built from what is set
            retry_config={"max_retries": 2, "retry_timeout": patience * 0.2},
            **{name: value for name, value in options.items() if value is not None},  # type: ignore[arg-type]
        )
    except (BaseError, ValueError) as error:
        raise ConfigurationError(f"audit.payloads: {first_line(error)}.") from error


def _open_keys(settings: Payloads) -> Callable[[], S3Credential] | None:
    """What reads the two keys from their files; None when they are to be found in the environment."""
    access, secret = settings.access_key_file, settings.secret_key_file
    if access is None or secret is None:
        return None

    def read() -> S3Credential:
        # The library asks again for what has expired, ten times a second at most.
        expires_at = datetime.now(UTC)
        return {"access_key_id": read_key(access), "secret_access_key": read_key(secret), "expires_at": expires_at}

    read()
    return read


def _require(value: str | None, pattern: re.Pattern[str], name: str, expected: str) -> None:
    if value is not None and not pattern.fullmatch(value):
        raise ConfigurationError(f"audit.payloads.{name}: expected {expected}.")


def _read_piece(file: Path) -> tuple[int, bytes | None]:
    """The same of a file. Whoever can write in the folder can put anything in a piece's place: a pipe must not be
    waited for, nor a link followed, so what is no regular file is no piece.
    """
    try:
        descriptor = os.open(file, _OPEN | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _NO_FILE:
            return 0, None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return 0, None
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            kept = opened.read(PIECE_BYTES + 1)
        return len(kept), kept
    finally:
        os.close(descriptor)


def _make_durable(folder: Path, path: str) -> None:
    """The library renames a whole file into place, and leaves the disk and the file's mode to the system."""
    file = folder / path
    file.chmod(0o600)
    for place in (file, file.parent, file.parent.parent, folder):
        descriptor = os.open(place, _OPEN)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _path(day: str, sha256: str) -> str:
    """Where a piece is kept; the names may come from a database that somebody has changed. Raises NotFound."""
    if not _DAY.fullmatch(day) or not _SHA256.fullmatch(sha256):
        raise NotFound(f"no payload is called {day}/{sha256}")
    return f"{day}/{sha256[:2]}/{sha256}"


@contextmanager
def _unavailable(done: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise Unavailable(f"payloads cannot be {done} in the object store: {_explain(error)}") from error


def _answer(error: Exception) -> str:
    """What an S3 server answered, in its own word; empty for a folder."""
    match = _ANSWER.search(str(error))
    return match[1] if match else ""


def _explain(error: Exception) -> str:
    """Without the server's text and the library's own, which are long and quote the request."""
    told = str(error)
    found = ((pattern.search(told), reason) for pattern, reason in _REASONS)
    return next((reason.format(match[1]) for match, reason in found if match), first_line(error))

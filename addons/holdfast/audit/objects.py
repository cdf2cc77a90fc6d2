"""Large payloads beside the database: a folder, or a bucket of any S3 server, through obstore.

A piece (see `payload`) is kept under `DAY/FIRST TWO DIGITS/SHA-256`, as its blob's row says (`codec`), before the
transaction that refers to it begins; a transaction that then fails leaves a piece that nobody refers to, which the
next one of the same content finds or retention removes with its day. What comes back is not trusted: readers
check it against its name.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.exceptions import BaseError, NotFoundError
from obstore.store import LocalStore, S3Store

from holdfast.errors import ConfigurationError, NotFound, Unavailable
from holdfast.settings import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from holdfast.settings import Payloads

PARALLEL_PUTS = 8


class ObjectPieces:
    """Pieces in one folder or bucket. Blocking; safe to use from several threads."""

    def __init__(
        self, store: LocalStore | S3Store, inline_bytes: int, settle: Callable[[str], None] | None = None
    ) -> None:
        self._store = store
        self._inline_bytes = inline_bytes
        self._settle = settle
        self._threads = ThreadPoolExecutor(PARALLEL_PUTS, thread_name_prefix="holdfast-pieces")

    def takes(self, kept: bytes) -> bool:
        """Whether a piece that is kept as these bytes is large enough for this store."""
        return len(kept) > self._inline_bytes

    def put(self, day: str, pieces: Mapping[str, bytes]) -> None:
        """Keep pieces by their SHA-256; returns when all of them are durable. Raises Unavailable."""
        with _unavailable("kept"):
            list(self._threads.map(lambda piece: self._put_one(day, *piece), pieces.items()))

    def get(self, day: str, sha256: str) -> bytes:
        """Return a piece as it is kept. Raises NotFound, Unavailable."""
        with _unavailable("read"):
            return bytes(self._store.get(_path(day, sha256)).bytes())

    def delete(self, day: str, digests: Sequence[str]) -> None:
        """Remove pieces; one that is not there is no error. Raises Unavailable."""
        with _unavailable("removed"):
            for digest in digests:
                try:
                    self._store.delete(_path(day, digest))
                except (NotFoundError, FileNotFoundError):
                    continue

    def check(self) -> None:
        """Write and remove a piece that means nothing. Raises ConfigurationError."""
        try:
            self.put("check", {"0" * 64: b"holdfast"})
            self.delete("check", ["0" * 64])
        except Unavailable as error:
            raise ConfigurationError(f"audit.payloads: {error}.") from error

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _put_one(self, day: str, sha256: str, kept: bytes) -> None:
        path = _path(day, sha256)
        self._store.put(path, kept, use_multipart=False)
        if self._settle is not None:
            self._settle(path)


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
    return ObjectPieces(LocalStore(folder), inline_bytes, settle=lambda path: _make_durable(folder, path))


def _open_bucket(settings: Payloads, deadline_seconds: float) -> S3Store:
    patience = timedelta(seconds=deadline_seconds)
    options: dict[str, Any] = {"region": settings.region, "endpoint": settings.endpoint}
    for name, file in (("access_key_id", settings.access_key_file), ("secret_access_key", settings.secret_key_file)):
        options[name] = read_file(file).decode("ascii", "replace").strip() if file is not None else None
    client: dict[str, Any] = {"timeout": patience, "allow_http": (settings.endpoint or "").startswith("http://")}
    if settings.certificate_authority is not None:
        client["root_certificate"] = read_file(settings.certificate_authority)
    try:
        return S3Store(
            str(settings.bucket),
            prefix=settings.prefix or None,
            client_options=client,  # type: ignore[arg-type]  # built from what is set
            retry_config={"max_retries": 1, "retry_timeout": patience},
            **{name: value for name, value in options.items() if value is not None},
        )
    except BaseError as error:
        raise ConfigurationError(f"audit.payloads: {_first_line(error)}.") from error


def _make_durable(folder: Path, path: str) -> None:
    """The library renames a whole file into place and leaves the disk to the system."""
    file = folder / path
    for place in (file, file.parent, file.parent.parent, folder):
        descriptor = os.open(place, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _path(day: str, sha256: str) -> str:
    return f"{day}/{sha256[:2]}/{sha256}"


@contextmanager
def _unavailable(done: str) -> Iterator[None]:
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise NotFound("a payload is not in the object store") from error
    except (BaseError, OSError) as error:
        raise Unavailable(f"payloads cannot be {done} in the object store: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")

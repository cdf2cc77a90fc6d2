"""Where tokens are kept between commands: one file for each login, readable by its owner only.

`${XDG_CACHE_HOME:-~/.cache}/holdfast/tokens/KEY.json`, mode 0600, in a folder of mode 0700. A file that anybody else
could have read or written is not believed: what is in it may be known, or be another's. A file is replaced as a
whole, so that a reader finds the old tokens or the new ones. Beside it, `KEY.lock` lets one process at a time get new
tokens: refresh tokens are often good once, and a second use ends the login (RFC 9700 section 4.14.2).

Part of the cached path: only the standard library is imported, and no pathlib, which alone takes as long as all else.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from holdfast.login.plain_json import parse_json
from holdfast.login.request import LoginRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FRESH_SECONDS = 60
"""A token with less left is not given out while there can be a new one."""


class NotTrusted(Exception):
    """A file or folder of the cache is not as this program leaves it; the message says which, and how."""


class Tokens(NamedTuple):
    """What is kept of one login: the token of the kind that was asked for, and what gets the next one.

    `expires_at` is in seconds since the epoch. `refresh_token` is empty where the provider gave none.
    """

    subject: str
    token: str
    expires_at: int
    refresh_token: str = ""

    def __repr__(self) -> str:
        return "Tokens(...)"

    def is_fresh(self, now: float) -> bool:
        """Whether the token is good for a minute more."""
        return self.expires_at - now >= FRESH_SECONDS


_TYPES = {name: int if name.endswith("_at") else str for name in Tokens._fields}


class TokenCache:
    """The files in one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def path(self, request: LoginRequest, suffix: str = ".json") -> str:
        """Where the tokens of a request are kept."""
        return os.path.join(self.folder, request.key + suffix)

    def read(self, request: LoginRequest) -> Tokens | None:
        """The tokens of a request; None when nobody has logged in. Raises NotTrusted, OSError."""
        path = self.path(request)
        document = self._read_file(path)
        if document is None:
            return None
        whose, tokens = _parse(path, document)
        if whose != request:
            raise NotTrusted(f"{path}: holds the tokens of another login")
        return tokens

    def write(self, request: LoginRequest, tokens: Tokens) -> None:
        """Keep the tokens of a request in place of those before. Raises NotTrusted, OSError."""
        import json
        from pathlib import Path

        from holdfast.certificates import write_private

        self._make_folder()
        document = {"request": request._asdict(), "tokens": tokens._asdict()}
        write_private(Path(self.path(request)), json.dumps(document).encode("ascii"))

    def remove(self, request: LoginRequest) -> bool:
        """Forget the tokens of a request; whether there were any. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(self.path(request))
            return True
        return False

    def logins(self) -> list[tuple[LoginRequest, Tokens]]:
        """The logins that are kept, leaving out files that are not trusted. Raises OSError."""
        found = []
        for path in self._files():
            with suppress(NotTrusted):
                document = self._read_file(path)
                if document is not None:
                    found.append(_parse(path, document))
        return found

    def requests(self) -> list[LoginRequest]:
        """What each of those is for. Raises OSError."""
        return [request for request, _ in self.logins()]

    def remove_all(self) -> int:
        """Forget every login; how many there were. Raises OSError.

        Never by way of a link: whoever made that chose whose files end here.
        """
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            logins = list(filter(_is_login, os.listdir(folder)))
            for name in logins:
                os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)
        return len(logins)

    @contextmanager
    def locked(self, request: LoginRequest) -> Iterator[None]:
        """Wait until no other process gets tokens for this request, and keep others waiting.

        The lock goes with the process, however that ends. Raises NotTrusted, OSError.
        """
        import fcntl  # here, since Windows has none and the other commands are imported there too

        self._make_folder()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self.path(request, ".lock"), flags, 0o600), "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _files(self) -> list[str]:
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        return [os.path.join(self.folder, name) for name in names if _is_login(name)]

    def _read_file(self, path: str) -> bytes | None:
        try:
            self._check_folder()
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotTrusted(f"{path}: cannot be read: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            _require_own(path, os.fstat(descriptor), stat.S_ISREG)
            return file.read()

    def _make_folder(self) -> None:
        os.makedirs(os.path.dirname(self.folder), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        self._check_folder()

    def _check_folder(self) -> None:
        _require_own(self.folder, os.lstat(self.folder), stat.S_ISDIR)


def find_folder(environment: Mapping[str, str]) -> str:
    """The folder of the XDG Base Directory Specification; a relative XDG_CACHE_HOME is ignored, as that has it."""
    root = environment.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):
        root = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(root, "holdfast", "tokens")


def _is_login(name: str) -> bool:
    """Whether a file of this name holds a login; one that begins with a dot is still being written."""
    return name.endswith(".json") and not name.startswith(".")


def _require_own(path: str, found: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(found.st_mode):
        raise NotTrusted(f"{path}: is not a plain file or folder")
    if found.st_uid != os.geteuid():
        raise NotTrusted(f"{path}: belongs to another user ({found.st_uid})")
    if found.st_mode & 0o077:
        raise NotTrusted(f"{path}: is open to other users (mode {stat.S_IMODE(found.st_mode):04o})")


def _parse(path: str, document: bytes) -> tuple[LoginRequest, Tokens]:
    try:
        kept = parse_json(document.decode("ascii"))
        whose, tokens = kept["request"], Tokens(**kept["tokens"])
        request = LoginRequest(**(whose | {"scopes": tuple(whose["scopes"])}))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotTrusted(f"{path}: is not what a login writes") from None
    texts = (*request[:2], *request.scopes, *request[3:])
    types_of_tokens = (type(value) is _TYPES[name] for name, value in tokens._asdict().items())
    if not all(types_of_tokens) or not all(type(text) is str for text in texts):
        raise NotTrusted(f"{path}: is not what a login writes")
    return request, tokens

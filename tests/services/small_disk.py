"""A file system of a few MiB of the tests' own, which they fill to the last byte and empty again: a tmpfs.

Root may mount one. Another user may in namespaces of its own (user_namespaces(7)), which a process of one thread can
enter; what it mounts there nobody else sees.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = bytes(4096)
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class SmallDisk:
    """The file system, mounted at `folder`, which everybody may enter."""

    folder: Path

    @property
    def ballast(self) -> Path:
        """The file that takes all room."""
        return self.folder / "ballast"

    def fill(self) -> None:
        """Take all room that there is; again, what has come free since."""
        with self.ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(PAGE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def give_back(self, pages: int) -> None:
        """Give so many pages of the room back."""
        os.truncate(self.ballast, self.ballast.stat().st_size - pages * len(PAGE))

    def empty(self) -> None:
        """Give the room back."""
        self.ballast.unlink(missing_ok=True)

    @contextmanager
    def filled(self) -> Iterator[None]:
        """Full for as long as the block lasts."""
        self.fill()
        try:
            yield
        finally:
            self.empty()


@contextmanager
def small_disk(mebibytes: int) -> Iterator[SmallDisk]:
    """A file system of this size, for as long as the block lasts. Raises PermissionError where none may be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-disk-"))
    try:
        _call("mount", b"tmpfs", bytes(folder), b"tmpfs", 0, b"size=%dm,mode=0755" % mebibytes)
        try:
            yield SmallDisk(folder)
        finally:
            _call("umount2", bytes(folder), MNT_DETACH)  # what a test left open in it goes when it is closed
    finally:
        folder.rmdir()


def enter_namespaces() -> None:
    """Let this process mount what it likes, where it is not root. Raises OSError where that is not allowed."""
    user, group = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNS)
    own = Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")


def _call(name: str, *arguments: bytes | int | None) -> None:
    call = getattr(_libc, name)
    passed = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    if call(*passed) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}; these tests need root, or a user's own namespaces")

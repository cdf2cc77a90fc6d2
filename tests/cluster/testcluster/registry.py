"""Clusters by name, for `scripts/testcluster`: who runs each, and where its kubeconfig is.

A cluster belongs to the process that holds the lock on its file for as long as it lives, so a cluster whose owner
was killed is known to be gone, and a process number that came again is never taken for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from testcluster.building import cache_folder
from testcluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testcluster.cluster import Cluster

_DOWN_SECONDS = 30.0


@dataclass(frozen=True)
class Entry:
    """A cluster that is ready: the process that owns it, its URL, and where its files are."""

    name: str
    pid: int
    server: str
    kubeconfig: str
    kubectl: str
    audit_log: str


@contextmanager
def owned(name: str) -> Iterator[Path]:
    """Yield an empty folder for the cluster `name`, owned by this process until the block ends, and then removed.

    Raises:
        ClusterError: there is such a cluster already, or the name is not fit for a file.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
        raise ClusterError(f"{name!r}: expected a name of lower-case letters, digits and dashes.")
    with _lock_file(name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClusterError(f"{name!r} is up already; `scripts/testcluster down --name {name}` ends it.") from error
        folder = _folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def announce(name: str, cluster: Cluster) -> Entry:
    """Say that the cluster is ready."""
    entry = Entry(
        name=name,
        pid=os.getpid(),
        server=cluster.server,
        kubeconfig=str(cluster.admin_kubeconfig),
        kubectl=str(cluster.kubectl),
        audit_log=str(cluster.audit_log),
    )
    draft = cluster.folder / ".cluster.json"
    draft.write_text(json.dumps(asdict(entry)))
    draft.rename(cluster.folder / "cluster.json")
    return entry


def find(name: str) -> Entry | None:
    """Return the cluster `name` if it is up and ready."""
    if not _is_owned(name):
        return None
    try:
        return Entry(**json.loads((_folder(name) / "cluster.json").read_text()))
    except FileNotFoundError:
        return None


def find_all() -> list[Entry]:
    """Return the clusters that are up and ready, by name."""
    names = sorted(file.stem for file in _root().glob("*.lock"))
    return [entry for name in names if (entry := find(name))]


def end(entry: Entry) -> None:
    """Have its owner end the cluster; return when it has.

    Raises:
        ClusterError: it was still there after half a minute.
    """
    os.kill(entry.pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    while _is_owned(entry.name):
        if time.monotonic() > deadline:
            raise ClusterError(f"{entry.name!r} (process {entry.pid}) did not end in {_DOWN_SECONDS:.0f} s.")
        time.sleep(0.1)


def _is_owned(name: str) -> bool:
    try:
        with _lock_file(name).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _root() -> Path:
    folder = cache_folder() / "clusters"
    folder.mkdir(exist_ok=True)
    return folder


def _folder(name: str) -> Path:
    return _root() / name


def _lock_file(name: str) -> Path:
    return _root() / f"{name}.lock"

"""Packages of npm for the programs of the tests, installed once by `npm ci`.

They are kept in a cache folder that is named by a hash of package.json, package-lock.json and Node's version. The lock
names no registry, so that npm takes them from where it is configured to; their hashes are in it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Report = Callable[[str], None]

FILES = ("package.json", "package-lock.json")
SECONDS = 300


class NodeFailed(Exception):
    """Node or npm is missing, or npm said no; the message says which."""


def find_node() -> str:
    """The program `node`. Raises NodeFailed."""
    return _find("node")


def install_packages(project: Path, report: Report) -> Path:
    """Return the folder `node_modules` with what the project's lock names, installed now if it is not in the cache.

    Raises NodeFailed.
    """
    npm = _find("npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "holdfast" / "npm"
    cache.mkdir(parents=True, exist_ok=True)
    installed = cache / _key(project)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.is_dir():
            report(f"Installing the npm packages of {project.name}, the first time only")
            _install(npm, project, installed)
    return installed / "node_modules"


def _find(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise NodeFailed(f"there is no {program} on PATH; the identity provider of the tests needs Node 20 or newer")
    return found


def _key(project: Path) -> str:
    digest = hashlib.sha256(_run([find_node(), "--version"], project).encode())
    for name in FILES:
        content = (project / name).read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _install(npm: str, project: Path, target: Path) -> None:
    """Install beside the target and rename, so that one that was interrupted is not taken for a whole one."""
    with tempfile.TemporaryDirectory(prefix=".installing-", dir=target.parent) as folder:
        out = Path(folder, "out")
        out.mkdir()
        for name in FILES:
            shutil.copy(project / name, out)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], out)
        out.rename(target)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    if done.returncode != 0:
        told = f"`{' '.join(command)}` failed with code {done.returncode}:\n{(done.stderr or done.stdout)[-2000:]}"
        raise NodeFailed(told)
    return done.stdout

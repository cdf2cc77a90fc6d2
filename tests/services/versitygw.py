"""The program of the S3 server: versitygw (https://github.com/versity/versitygw, Apache-2.0), built once with Go.

go.mod beside this file pins it. It is kept in a cache folder that is named by a hash of everything that goes in.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from testcluster.building import find_go

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[str], None]

MODULE = Path(__file__).parent
PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
FLAGS = ["-trimpath", "-buildvcs=false", "-ldflags", "-s -w"]
ENVIRONMENT = {"CGO_ENABLED": "0", "GOWORK": "off"}


class BuildFailed(Exception):
    """Go said no; the message has what it said."""


def find_versitygw(report: Report) -> Path:
    """Return the program, built now if it is not in the cache: a minute or two.

    Raises:
        testcluster.GoMissing: it must be built, and there is no Go and no way to get one.
        BuildFailed: the build failed.
    """
    go = find_go(report)
    cache = _cache_folder()
    built = cache / _key(go)
    with _only_builder(cache):
        if not built.is_dir():
            report("Building the S3 server of the tests, the first time only")
            _build(go, cache, built)
    return built / "versitygw"


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "holdfast" / "services"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(go: Path) -> str:
    digest = hashlib.sha256()
    for file in (MODULE / "go.mod", MODULE / "go.sum"):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    digest.update("\n".join([_run_go(go, "env", "GOVERSION", "GOOS", "GOARCH"), PACKAGE, *FLAGS]).encode())
    return digest.hexdigest()


@contextmanager
def _only_builder(cache: Path) -> Iterator[None]:
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(go: Path, cache: Path, target: Path) -> None:
    """Build beside the target and rename, so that a build that was interrupted does not look like one that was not."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=cache) as folder:
        out = Path(folder) / "out"
        out.mkdir()
        _run_go(go, "build", *FLAGS, "-o", f"{out}/", PACKAGE)
        out.rename(target)


def _run_go(go: Path, *arguments: str) -> str:
    done = subprocess.run(
        [go, *arguments],
        cwd=MODULE,
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise BuildFailed(f"`go {arguments[0]}` in {MODULE} failed with code {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout

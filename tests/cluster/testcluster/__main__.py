"""`scripts/testcluster`: a real Kubernetes API server on loopback, for trying things by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from testcluster import registry
from testcluster.building import cache_folder, find_assets
from testcluster.cluster import Cluster
from testcluster.errors import ClusterError
from testcluster.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

app = typer.Typer(
    name="testcluster",
    help="A real Kubernetes API server on loopback: etcd, kube-apiserver, kube-controller-manager and one node.\n\n"
    "The first `up` builds them, which takes minutes; KUBEBUILDER_ASSETS is used first where it is set. "
    "`kubectl exec` runs commands on this machine.",
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Option("--name", help="Which cluster; several may be up at once.")]


@app.command()
def build() -> None:
    """Build what a cluster is made of, where it is not there yet: about 12 minutes on two cores."""
    progress = Progress(_write, sys.stderr.isatty())
    assets = find_assets(progress)
    progress.done()
    print(f"the test cluster is built: {assets.kube_apiserver.parent}")


@app.command()
def up(
    name: Name = "default",
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running; `down` ends it.")] = False,
) -> None:
    """Bring a cluster up, and take it down at Ctrl-C."""
    if registry.find(name):
        raise ClusterError(f"{name!r} is up already; `scripts/testcluster down --name {name}` ends it.")
    progress = Progress(_write, sys.stderr.isatty())
    assets = find_assets(progress)
    if detach:
        entry = _start_owner(name, progress)
        progress.done()
        print(_describe(entry))
        return
    with registry.owned(name) as folder:
        cluster = Cluster.start(folder, assets, progress)
        progress.done()
        try:
            print(f"{_describe(registry.announce(name, cluster))}\nCtrl-C ends it.", flush=True)
            _watch(cluster)
        finally:
            _ignore_signals()
            cluster.stop()


@app.command()
def down(name: Name = "default") -> None:
    """End a cluster and remove its files."""
    registry.end(_existing(name))


@app.command()
def status(
    output: Annotated[Literal["text", "json"], typer.Option("-o", "--output", help="How to print it.")] = "text",
) -> None:
    """List the clusters that are up."""
    entries = registry.find_all()
    if output == "json":
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
    else:
        print(
            "\n\n".join(_describe(entry) for entry in entries)
            or "No cluster is up; `scripts/testcluster up` starts one."
        )


@app.command()
def kubeconfig(name: Name = "default") -> None:
    """Print the path of the administrator's kubeconfig: export KUBECONFIG=$(scripts/testcluster kubeconfig)."""
    print(_existing(name).kubeconfig)


def _watch(cluster: Cluster) -> None:
    """Return at Ctrl-C; raise ClusterError if a process ends by itself."""
    with suppress(KeyboardInterrupt):
        while True:
            cluster.check()
            time.sleep(1)


def _existing(name: str) -> registry.Entry:
    entry = registry.find(name)
    if entry is None:
        raise ClusterError(f"{name!r} is not up; `scripts/testcluster up --name {name}` starts it.")
    return entry


def _start_owner(name: str, progress: Progress) -> registry.Entry:
    """Start a process that keeps the cluster up, and wait until the cluster is ready."""
    log = cache_folder() / "clusters" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:
        owner = subprocess.Popen(
            [sys.executable, "-m", "testcluster", "up", "--name", name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        while not (entry := registry.find(name)):
            progress(f"Starting {name}")
            _check_owner(owner, log)
            time.sleep(0.2)
    except BaseException:
        owner.terminate()
        owner.wait()
        raise
    return entry


def _check_owner(owner: subprocess.Popen[bytes], log: Path) -> None:
    if owner.poll() is not None:
        raise ClusterError(f"It did not come up:\n{log.read_text(errors='replace')}")


def _describe(entry: registry.Entry) -> str:
    return f"{entry.name}: {entry.server}\n  {entry.kubectl} --kubeconfig {entry.kubeconfig} get pods -A"


def _write(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """Run the command; what is wrong is one sentence and exit code 2."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        app(prog_name="scripts/testcluster")
    except ClusterError as error:
        print(f"testcluster: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

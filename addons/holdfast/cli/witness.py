"""`holdfast witness`: cosigns the checkpoints of gateways elsewhere, as long as their logs only grow."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import parse_address
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.audit.note import KeyName

StateDir = Annotated[
    Path, typer.Option("--state-dir", metavar="DIR", help="Folder of its key and of what it cosigned.")
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="What its key is called when it is made; holdfast-witness/HOST when absent."),
]

app = typer.Typer(no_args_is_help=True, help="Cosign the checkpoints of gateways elsewhere.")


@app.command()
def serve(
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", metavar="FILE", help="A gateway's root.pub: certifies its logs. May be given again."),
    ] = None,
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="NAME+ID+KEY", help="A log's own key. May be given again.")
    ] = None,
    state_dir: StateDir = Path("witness"),
    name: Name = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Address; port 0 takes a free one.")] = (
        "127.0.0.1:8446"
    ),
    certificate: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Serving certificate chain, PEM; without it, loopback only.")
    ] = None,
    private_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Key of the serving certificate, PEM.")
    ] = None,
    keep_days: Annotated[
        int, typer.Option(min=1, metavar="N", help="Keep the files of what was cosigned, one a day, of N days.")
    ] = 400,
    new_logs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Cosign at most N logs a day that one key begins; known ones go on.")
    ] = 1000,
) -> None:
    """Run a witness (C2SP tlog-witness) until it is interrupted; it prints `ready URL` once it takes requests.

    It belongs on another machine than the gateway, under another's control. Give the auditor of its folder
    `cosigned-*.notes`, `logs/`, and `forks/` if there is one; never `witness.key`.

    \b
    Example:
      holdfast witness serve --root root.pub --state-dir witness --listen 127.0.0.1:8446
    """
    if (certificate is None) != (private_key is None):
        raise ConfigurationError("--certificate and --private-key go together: give both or neither.")
    from holdfast.audit.keys import load_verifier
    from holdfast.audit.note import BadNote, parse_verifier
    from holdfast.witness.server import run
    from holdfast.witness.state import WitnessFolder
    from holdfast.witness.trust import Trust

    host, port = parse_address(listen)
    try:
        logs = [parse_verifier(text) for text in log or []]
    except BadNote as error:
        raise ConfigurationError(f"--log: {error}.") from error
    run(
        WitnessFolder(state_dir, keep_days),
        Trust([load_verifier(file) for file in root or []], logs),
        name=_key_name(name),
        new_logs_a_day=new_logs,
        host=host,
        port=port,
        certificate=certificate,
        private_key=private_key,
        ready=lambda url: typer.echo(f"ready {url}"),
    )


@app.command()
def keys(state_dir: StateDir = Path("witness"), name: Name = None) -> None:
    """Print the witness's public key, for gateways (`audit.anchors.witnesses`) and auditors; made where it is missing.

    \b
    Example:
      holdfast witness keys --state-dir witness --name witness.example/w1
    """
    from holdfast.witness.state import WitnessFolder

    folder = WitnessFolder(state_dir)
    # A witness that runs holds the lock, and has a key.
    with nullcontext() if folder.key_file.exists() else folder.locked():
        typer.echo(str(folder.open_key(_key_name(name)).verifier))


def _key_name(name: str | None) -> KeyName | None:
    from holdfast.audit.note import key_name

    return None if name is None else key_name(name)

"""`holdfast audit keys`: the root that vouches for everything, and the key that the gateway signs with.

And `holdfast audit accept`, for a database that was put back on purpose.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_pairs, print_value

if TYPE_CHECKING:
    from holdfast.audit.checkpoint import Checkpoint
    from holdfast.audit.head import HeadFile
    from holdfast.audit.keys import KeyFolder
    from holdfast.settings import Settings

app = typer.Typer(help="The keys that sign the record.", no_args_is_help=True)
RootFile = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="FILE", help="The root's private key, kept elsewhere; else root.key among the keys."
    ),
]


@app.command()
def init(root: RootFile = None, config: ConfigFile = None) -> None:
    """Make the root key and the first key that the gateway signs with.

    Without this `holdfast serve` makes both at its first start. The root's private key is needed only to certify
    the next key: with --root it is written straight to where it is to be kept; else move root.key there yourself.

    \b
    Example:
      holdfast audit keys init --root /media/usb/holdfast-root.key
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    settings = read_settings(config)
    folder = _folder(settings)
    with folder.locked():
        signer = folder.make_root(settings.cluster, Ed25519PrivateKey.generate(), root)
        _make_epoch_key(folder, settings, root)
    typer.echo(
        f"root key, public: {folder.root_pub}\n  {signer.verifier}\nroot key, private: {root or folder.root_key}"
    )
    if root is None:
        typer.echo("Move the private one off this machine, to a safe place: who has it can vouch for a forged record.")


@app.command()
def rotate(root: RootFile = None, config: ConfigFile = None) -> None:
    """Make a new key for the gateway and certify it with the root; a running gateway signs with it from now on.

    \b
    Example:
      holdfast audit keys rotate --root /media/usb/holdfast-root.key
    """
    settings = read_settings(config)
    folder = _folder(settings)
    with folder.locked():
        _make_epoch_key(folder, settings, root)
    typer.echo(f"the next log is signed with {_certified(folder)['key']}")


@app.command()
def show(output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Show the public keys, what they are certified for, and whether the root's private key is still here.

    \b
    Example:
      holdfast audit keys show -o json
    """
    folder = _folder(read_settings(config))
    told = {"root": str(folder.root_verifier()), "rootKeyIsHere": folder.root_key.exists(), **_certified(folder)}
    if output is not Output.TABLE:
        print_value(told, output)
        return
    print_pairs(
        [
            ("Root", told["root"]),
            ("Root, private", f"{folder.root_key}: move it away" if told["rootKeyIsHere"] else "not on this machine"),
            ("Key", told["key"]),
            ("Cluster", told["cluster"]),
            ("Replicas", ", ".join(told["replicas"])),
            ("Valid", f"{told['notBefore']} to {told['notAfter']}"),
        ]
    )


def accept(
    reason: Annotated[str, typer.Option(help="Why the database is not as the gateway left it; goes into the record.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
) -> None:
    """Let the gateway go on with a database that is behind what it wrote, as one that was put back from a backup.

    The gateway refuses such a database by itself. After this it begins a new log whose first record tells the
    reason and what it remembered; `holdfast audit verify` reports the gap, and what is gone if it was anchored.

    \b
    Example:
      holdfast audit accept --reason "restored the backup of 2026-01-31 after the disk failed"
    """
    from holdfast.audit.keys import CONSOLE

    settings = read_settings(config)
    heads = [_head(settings, role) for role in ("", CONSOLE)]
    try:
        told = [(head, _remembered(head)) for head in heads if head.file.exists()]
        remembered = [f"{known.origin} of {known.size} records" for _, known in told if known is not None]
        typer.echo(f"What was written last: {', '.join(remembered) or 'nothing'}.", err=True)
        if not yes and not (sys.stdin.isatty() and typer.confirm("Go on without it?", err=True)):
            typer.echo("nothing was changed; give --yes where nobody can be asked", err=True)
            raise typer.Exit(1)
        for head, known in told:
            head.write_gap(reason if known is None else f"{reason} (before: {known.origin}, {known.size} records)")
    finally:
        for head in heads:
            head.close()
    typer.echo("the next start begins a new log and records the reason", err=True)


def _folder(settings: Settings) -> KeyFolder:
    from holdfast.audit.keys import KeyFolder

    return KeyFolder(settings.key_folder)


def _head(settings: Settings, role: str) -> HeadFile:
    from holdfast.audit.head import HeadFile

    return HeadFile(settings.state_dir / f"audit{role}.head")


def _remembered(head: HeadFile) -> Checkpoint | None:
    """What the gateway wrote last; None when the file that should tell is damaged."""
    from holdfast.errors import ConfigurationError

    head.lock()
    try:
        return head.load()
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        return None


def _make_epoch_key(folder: KeyFolder, settings: Settings, root: Path | None) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from holdfast.audit.keys import ROLES

    replicas = [settings.replica_name + role for role in ROLES]
    signer, now = folder.load_root(root), datetime.now(UTC)
    folder.make_epoch_key(signer, settings.cluster, replicas, Ed25519PrivateKey.generate(), now)


def _certified(folder: KeyFolder) -> dict[str, Any]:
    from holdfast.audit.note import encode_base64

    certificate = folder.load_epoch_key().certificate
    return {
        "key": encode_base64(certificate.key),
        "cluster": certificate.cluster,
        "replicas": list(certificate.replicas),
        "notBefore": certificate.not_before.isoformat().replace("+00:00", "Z"),
        "notAfter": certificate.not_after.isoformat().replace("+00:00", "Z"),
    }

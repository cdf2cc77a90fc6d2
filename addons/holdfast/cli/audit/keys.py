"""`holdfast audit keys`: the root that vouches for everything, and the key that the gateway signs with.

And `holdfast audit accept`, for a database that was put back on purpose.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.audit.reading import own_root
from holdfast.cli.options import ConfigFile, OutputFormat, read_settings, require_consent, require_reason
from holdfast.cli.output import Output, print_pairs, print_value
from holdfast.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.audit.checkpoint import Checkpoint
    from holdfast.audit.head import HeadFile
    from holdfast.audit.keys import KeyFolder
    from holdfast.audit.store.ledger import LedgerStore
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
    if root is not None and not root.parent.is_dir():
        raise ConfigurationError(f"{root}: its folder is not there; make it, or name another with --root.")
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
    own_root(settings)
    if root is None and not folder.root_key.exists():
        raise ConfigurationError(f"{folder.root_key}: the root's private key is not here; give --root FILE.")
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
    settings = read_settings(config)
    root, folder = own_root(settings), _folder(settings)
    told = {"root": str(root), "rootKeyIsHere": folder.root_key.exists(), **_certified(folder)}
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
    reason and what it remembered; `holdfast audit verify` reports the gap, and what is gone if it was anchored. Until
    that start it can be taken back: remove the file that this command names (audit.head.gap).

    \b
    Example:
      holdfast audit accept --reason "restored the backup of 2026-01-31 after the disk failed"
    """
    from holdfast.audit.head import STOP_FIRST, find_heads
    from holdfast.audit.logs import describe_gap
    from holdfast.audit.store.ledger import LedgerStore
    from holdfast.database import Database

    reason = require_reason(reason)
    settings = read_settings(config)
    heads = find_heads(settings.state_dir)
    with ExitStack() as stack:
        for head in heads:
            stack.callback(head.close)
            head.lock(STOP_FIRST)
        database = stack.enter_context(closing(Database.open_readonly(settings.database_url)))
        gaps = [(head, known) for head in heads for known in _find_gaps(head, LedgerStore(database))]
        if not gaps:
            raise Conflict("the database has all that the gateway wrote; there is nothing to accept")
        if not yes:
            require_consent("Go on without it?", "nothing was changed")
        for head, known in gaps:
            head.write_gap(describe_gap(reason, known))
    files = " ".join(str(head.gap_file) for head, _ in gaps)
    typer.echo("the next start begins a new log and records the reason", err=True)
    typer.echo(f"to take it back before then: rm {files}", err=True)


def _find_gaps(head: HeadFile, store: LedgerStore) -> Iterator[Checkpoint | None]:
    """Tell and yield what the gateway wrote last, if the database lacks any of it; None where nobody can say."""
    from holdfast.audit.head import find_lack

    try:
        known = head.load()
    except ConfigurationError as error:
        typer.echo(str(error), err=True)
        yield None
        return
    if known is not None and (lack := find_lack(store, known)):
        typer.echo(lack, err=True)
        yield known


def _folder(settings: Settings) -> KeyFolder:
    from holdfast.audit.keys import KeyFolder

    return KeyFolder(settings.key_folder)


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

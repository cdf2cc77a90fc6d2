"""`holdfast audit prove | verify-proof`: one record shown to be in its log, to somebody who has nothing but a key."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.audit.reading import load_root, open_reading
from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_pairs, print_value
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.audit.prove import Proven


def prove(
    target: Annotated[
        str,
        typer.Argument(
            metavar="ID|LOG", help="The audit ID of a call or the ID of its hold, or the beginning; or a log's name."
        ),
    ],
    seq: Annotated[int | None, typer.Argument(min=0, metavar="[SEQ]", help="With LOG: which record of it.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Write it there, not to standard output.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Prove one record: that of a call which tells how it ended, or any record of a log.

    The proof is text that other tools read too (C2SP tlog-proof). It holds the record itself, and what was masked
    in the record is masked in it; the bodies are not in it.

    \b
    Example:
      holdfast audit prove 5f0c2a91 -f call.tlog-proof
      holdfast audit prove holdfast/production/gateway/12 0
    """
    from holdfast.audit.prove import write_proof
    from holdfast.audit.store.proving import find_call, prove_record
    from holdfast.certificates import write_private

    if seq is None and "/" in target:
        raise ConfigurationError(f"{target}: is a log; say which record of it: holdfast audit prove {target} SEQ.")
    settings = read_settings(config)
    with open_reading(settings) as database:
        place = find_call(database, target) if seq is None else (target, seq)
        text = write_proof(prove_record(database, *place))
    if file is None:
        sys.stdout.write(text)
    else:
        write_private(file, text.encode())
        typer.echo(f"written: record {place[1]} of {place[0]} to {file}", err=True)


def verify_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `holdfast audit prove` wrote, or -.")],
    root: Annotated[Path, typer.Option(metavar="FILE", help="The root's public key.")],
    output: OutputFormat = Output.TABLE,
) -> None:
    """Verify a proof and print the record that it proves. Needs no network, gateway, database or settings.

    \b
    Example:
      holdfast audit verify-proof call.tlog-proof --root root.pub
    """
    from holdfast.audit.prove import check_proof, parse_proof
    from holdfast.settings.section import read_file

    content = sys.stdin.buffer.read() if file == Path("-") else read_file(file)
    _print_proven(check_proof(parse_proof(content.decode("utf-8", "replace")), load_root(root)), output)


def _print_proven(proven: Proven, output: Output) -> None:
    import msgspec

    leaf, checkpoint = proven.leaf, proven.checkpoint
    record = msgspec.to_builtins(leaf.record)
    if output is not Output.TABLE:
        place = {"log": leaf.log, "seq": leaf.seq, "size": checkpoint.size, "root": checkpoint.root.hex()}
        print_value({"proven": place, "time": leaf.time, "record": record}, output)
        return
    what, erased = leaf.record.what, leaf.record.redact
    pairs = (
        ("Proven", f"record {leaf.seq} of the {checkpoint.size} of {leaf.log}"),
        ("Time", leaf.time),
        ("Kind", leaf.record.kind.value),
        ("Call", leaf.record.call),
        ("User", leaf.record.identity.username if leaf.record.identity else ""),
        ("Request", f"{what.method} {what.uri}" if what else ""),
        ("Answer", str(leaf.record.response.code) if leaf.record.response else ""),
        ("Erased", f"{', '.join(erased.payloads) or 'all records'} of {erased.log.log}" if erased else ""),
        ("Requested by", erased.requested_by if erased else ""),
        ("Reason", erased.reason if erased else ""),
    )
    print_pairs(pairs)

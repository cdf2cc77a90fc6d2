"""`holdfast audit reconcile`: the record held against the API server's own audit log."""

from __future__ import annotations

import gzip
import sys
import zlib
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.audit.reading import open_reading
from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_table, print_value
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.audit.reconcile import Call, Event, Summary

EXIT_BYPASSED = 10
EXIT_UNSEEN = 11


def reconcile(
    logs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="The API server's audit log, its parts in any order; .gz too, - is stdin."
        ),
    ],
    ignore_user: Annotated[
        list[str] | None,
        typer.Option(
            help="Count, do not name, direct calls of these users (glob). The cluster's own components when absent."
        ),
    ] = None,
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Name the calls that went around the gateway, and recorded ones that the API server never saw.

    The API server must log every call (an audit policy with level Metadata for all). Exits with 10 when a call went
    around the gateway, with 11 when only recorded calls are missing there. Where `audit.readDatabase` is a replica, it
    may lag: calls that it does not have yet look as if they had gone around.

    \b
    Example:
      holdfast audit reconcile /var/log/kubernetes/audit.log
      holdfast audit reconcile audit-*.log.gz --ignore-user 'system:*' -o json
    """
    import tempfile

    from holdfast.audit import reconcile as comparing
    from holdfast.audit.store.reconcile import RecordedCalls

    settings = read_settings(config)
    ignored = tuple(ignore_user) if ignore_user else comparing.OWN_TRAFFIC
    summary = comparing.Summary()
    with open_reading(settings) as database, tempfile.TemporaryDirectory(prefix="holdfast-") as scratch:
        record, seen = RecordedCalls(database), comparing.Seen(Path(scratch) / "seen.db")
        found = list(comparing.find_bypasses(_events(logs), record.known, seen, summary, ignored))
        covered = summary.covered()
        if covered is not None:
            found += comparing.find_unseen(record.between(*covered), seen)
        seen.close()
    _report(found, summary, output)
    _exit(found)


def _events(files: Sequence[Path]) -> Iterator[Event]:
    from holdfast.audit.reconcile import parse_events

    for file in files:
        with _open(file) as lines:
            try:
                yield from parse_events(lines)
            except ConfigurationError as error:
                raise ConfigurationError(f"{file}: {error}") from error
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise ConfigurationError(f"{file}: is no gzip file, or was cut: {error}.") from error


@contextmanager
def _open(file: Path) -> Iterator[Iterable[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rb") as stream:
        yield stream


def _report(found: Sequence[Call], summary: Summary, output: Output) -> None:
    from holdfast.audit.reconcile import DESCRIPTIONS

    if output is not Output.TABLE:
        print_value({"summary": _told(summary), "differences": [asdict(call) for call in found]}, output)
        return
    if found:
        columns = ("TIME", "USER", "VERB", "TARGET", "STATUS", "CLIENT", "ID", "WHAT")
        print_table(
            columns,
            (
                (
                    call.at[:19] + "Z",
                    call.user,
                    call.verb,
                    call.target,
                    str(call.code or ""),
                    call.client,
                    call.audit_id,
                    DESCRIPTIONS[call.difference],
                )
                for call in found
            ),
        )
    covered = summary.covered()
    told = f"{covered[0][:19]}Z to {covered[1][:19]}Z" if covered else "too short a time to miss anything"
    typer.echo(
        f"{summary.calls} calls in the API server's log ({told}): {summary.recorded} are in the record, "
        f"{summary.own_traffic} are the cluster's own; {len(found)} differ",
        err=True,
    )


def _told(summary: Summary) -> dict[str, object]:
    covered = summary.covered() or (None, None)
    return {
        "calls": summary.calls,
        "recorded": summary.recorded,
        "ownTraffic": summary.own_traffic,
        "coveredFrom": covered[0],
        "coveredTo": covered[1],
        "gatewayUsers": sorted(summary.gateway_users),
    }


def _exit(found: Sequence[Call]) -> None:
    from holdfast.audit.reconcile import Difference

    kinds = {call.difference for call in found}
    if kinds & {Difference.BYPASSED, Difference.MISUSED}:
        raise typer.Exit(EXIT_BYPASSED)
    if Difference.UNSEEN in kinds:
        raise typer.Exit(EXIT_UNSEEN)

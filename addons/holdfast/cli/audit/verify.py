"""`holdfast audit verify`: the record held against what was signed, and against what was kept outside the database."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.audit.reading import load_root, load_witness, open_lines, own_root
from holdfast.cli.options import ConfigFile, OutputFormat, parse_age, read_settings
from holdfast.cli.output import Output, print_table, print_value, show_count
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.anchors.evidence import Evidence
    from holdfast.audit.export import Line
    from holdfast.audit.note import Verifier
    from holdfast.audit.verify import Anchoring, Class, Report
    from holdfast.audit.verify.examine import Examined
    from holdfast.audit.verify.findings import LogSummary
    from holdfast.cli.output import Advance
    from holdfast.settings import Settings

ROWS_TOLD = 100
ACCEPTABLE = ("unanchored", "stale", "clock", "incomplete", "redacted")


def verify(
    export: Annotated[
        Path | None,
        typer.Argument(
            metavar="[EXPORT]", help="A file that `holdfast audit export --ledger` wrote, or -; else the database."
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The root's public key; else root.pub of the gateway's keys."),
    ] = None,
    anchors: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with what the anchors kept, and callers' receipts.")
    ] = None,
    witness: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Public key of a witness whose cosignatures count; none is checked when absent."
        ),
    ] = None,
    tsa_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CA of the time-stamping authority whose tokens count, PEM.")
    ] = None,
    accept: Annotated[
        str, typer.Option(metavar="CLASS,...", help=f"Report, but do not fail on: {', '.join(ACCEPTABLE)}.")
    ] = "",
    stale_after: Annotated[
        str, typer.Option(help="How much older than the newest record the newest anchored one may be.")
    ] = "10m",
    tolerate_tail: Annotated[str, typer.Option(help="How long a time after the last anchor may be unanchored.")] = "0s",
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Verify the record. With an export, the root's key and anchors it needs no network, gateway, database or settings.

    Without an export it reads `audit.readDatabase` where that is set. A replica may lag: what was anchored and has not
    arrived there yet is reported as cut off; verify again, or the database itself, before you believe it.

    Collect the anchors first, then export: what is recorded and anchored after the export looks cut off (truncated,
    log-missing) in it.

    \b
    The exit code is that of the gravest finding:
      0  intact and anchored      10  altered (it says where)     11  not anchored, or the end is not
      12 anchors are stale        13  clock anomalies             14  calls without an outcome, gaps,
                                                                  erasures that broke off
      15 redacted, with a record  1   it could not be done        2   a setting or file is not as it must be

    \b
    Example:
      holdfast audit verify --anchors anchors
      holdfast audit verify record.export --root root.pub --anchors anchors --accept incomplete,redacted
    """
    from holdfast.audit.verify import verify_lines

    accepted = _parse_classes(accept)
    instead = "give --root FILE, the root's public key" if export is not None else ""
    settings = None if export is not None and root is not None else read_settings(config, instead)
    key = load_root(root) if root is not None else own_root(settings or read_settings(config))
    anchoring = replace(
        _read_anchors(anchors, witness or [], tsa_ca),
        stale_after=parse_age(stale_after, "--stale-after"),
        tolerated_tail=parse_age(tolerate_tail, "--tolerate-tail"),
    )
    with ExitStack() as stack:
        lines = _open_lines(export, settings, key, stack)
        advance = stack.enter_context(show_count("rows"))
        try:
            report = verify_lines(_counted_rows(lines, advance), key, anchoring)
        except _BadAnchors:
            raise
        except ConfigurationError as error:
            raise ConfigurationError(f"{export}: {error}" if export is not None else str(error)) from error
    _print_report(report, accepted, key, output)
    if export is not None and output is Output.TABLE and _is_only_cut(report):
        typer.echo("if this export is older than the anchors, export again before you believe this")
    raise typer.Exit(int(report.verdict(accepted)))


def _read_anchors(folder: Path | None, witnesses: list[Path], tsa_ca: Path | None) -> Anchoring:
    from holdfast.audit.anchors.timestamp import load_authority
    from holdfast.audit.verify import Anchoring

    evidence = _read_evidence(folder) if folder is not None else ()
    authority = load_authority(tsa_ca) if tsa_ca is not None else ()
    return Anchoring(evidence, tuple(load_witness(file) for file in witnesses), authority)


class _BadAnchors(ConfigurationError):
    """The fault is in what was kept outside, not in the export; it names its file."""


def _read_evidence(folder: Path) -> Iterator[Evidence]:
    from holdfast.audit.anchors.evidence import read_some_evidence

    try:
        yield from read_some_evidence(folder)
    except ConfigurationError as error:
        raise _BadAnchors(str(error)) from error


def _open_lines(
    export: Path | None, settings: Settings | None, root: Verifier, stack: ExitStack
) -> Iterable[Line | Examined]:
    from holdfast.audit.verify import examined_lines

    if export is None:
        return stack.enter_context(open_lines(settings or read_settings(None)))
    stream = sys.stdin.buffer if export == Path("-") else stack.enter_context(export.open("rb"))
    return stack.enter_context(closing(examined_lines(stream, root)))


def _counted_rows(lines: Iterable[Line | Examined], advance: Advance) -> Iterator[Line | Examined]:
    """Yield the lines, and tell of their rows: one that was examined may stand for many."""
    from holdfast.audit.verify.examine import count_rows

    untold = 0
    for line in lines:
        untold += count_rows(line)
        if untold >= ROWS_TOLD:
            advance(untold)
            untold = 0
        yield line


def _parse_classes(text: str) -> frozenset[Class]:
    from holdfast.audit.verify import Class

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(ACCEPTABLE))
    if unknown:
        raise ConfigurationError(f"--accept: {', '.join(unknown)}: expected some of {', '.join(ACCEPTABLE)}.")
    return frozenset(Class[name.upper()] for name in names)


def _in_order(logs: Iterable[LogSummary]) -> list[LogSummary]:
    """Logs by name, the numbers in it as numbers: the tenth of a replica after its second."""
    return sorted(
        logs, key=lambda log: [(len(part) if part.isdecimal() else 0, part) for part in log.origin.split("/")]
    )


def _is_only_cut(report: Report) -> bool:
    """Whether all that is altered is what a record also looks like that was exported before its anchors were made."""
    from holdfast.audit.verify import Class
    from holdfast.audit.verify.findings import CODES, LOG_MISSING, TRUNCATED

    altered = {CODES[name] for name in report.counts if CODES[name].grade is Class.ALTERED}
    return bool(altered) and altered <= {TRUNCATED, LOG_MISSING}


def _print_report(report: Report, accepted: frozenset[Class], root: Verifier, output: Output) -> None:
    if output is not Output.TABLE:
        print_value(_told(report, accepted, root), output)
        return
    if report.logs:
        rows = (
            (log.origin, str(log.size), str(log.anchored_size), "closed" if log.closed else "open")
            for log in _in_order(report.logs)
        )
        print_table(("LOG", "RECORDS", "ANCHORED", "STATE"), rows)
    if report.findings:
        typer.echo("")
        findings = (
            (
                finding.code.grade.name.lower(),
                finding.code.name,
                finding.log,
                "" if finding.seq is None else str(finding.seq),
                f"{finding.code.meaning}: {finding.what}",
            )
            for finding in sorted(report.findings, key=lambda finding: finding.code.grade)
        )
        print_table(("CLASS", "CODE", "LOG", "RECORD", "WHAT"), findings)
    typer.echo("")
    if report.unchecked:
        typer.echo(
            f"cosignatures that are there and were not checked: {report.unchecked}; name the witness's key with "
            "--witness FILE"
        )
    typer.echo(
        f"{_describe_verdict(report, accepted)}: {report.leaves} records in {len(report.logs)} logs, "
        f"{report.checkpoints} checkpoints, {report.payloads} payloads, {_describe_anchors(report)}; root key {root}"
    )


def _describe_anchors(report: Report) -> str:
    """How many checkpoints were kept outside; where witnesses were named, how many of them one has cosigned."""
    cosigned = "" if report.cosigned is None else f", {report.cosigned} of them cosigned by a witness that was named"
    return f"{report.anchors} anchored checkpoints{cosigned}"


def _describe_verdict(report: Report, accepted: frozenset[Class]) -> str:
    """The gravest class that was found; where that is accepted, the gravest after it that is not, too."""
    gravest, unaccepted = report.verdict(), report.verdict(accepted)
    if gravest is unaccepted:
        return gravest.name
    return f"{gravest.name} (accepted)" + (f", {unaccepted.name}" if unaccepted else "")


def _told(report: Report, accepted: frozenset[Class], root: Verifier) -> dict[str, Any]:
    return {
        "verdict": report.verdict().name,
        "accepted": [grade.name for grade in sorted(report.classes & accepted)],
        "exitCode": int(report.verdict(accepted)),
        "root": str(root),
        "records": report.leaves,
        "checkpoints": report.checkpoints,
        "payloads": report.payloads,
        "anchors": report.anchors,
        "cosigned": report.cosigned,
        "uncheckedCosignatures": report.unchecked,
        "logs": [asdict(log) for log in _in_order(report.logs)],
        "counts": dict(report.counts),
        "findings": [
            {
                "class": finding.code.grade.name,
                "code": finding.code.name,
                "log": finding.log,
                "seq": finding.seq,
                "what": finding.what,
            }
            for finding in report.findings
        ],
    }

"""`holdfast audit list | show | export`: calls listed, told and written as flows. They only ever read the database."""

from __future__ import annotations

import enum
import json
import re
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from holdfast.cli.audit.reading import open_payloads, open_reading
from holdfast.cli.options import ConfigFile, ListFormat, OutputFormat, names_day, parse_since, read_settings
from holdfast.cli.output import (
    ListOutput,
    Output,
    print_csv,
    print_line,
    print_pairs,
    print_table,
    print_value,
    render_yaml,
    show_safely,
)
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.audit.record import CallRow
    from holdfast.audit.store import AuditStore, CallStory, Filters, Position
    from holdfast.replay.story import Body
    from holdfast.settings import Settings

FOLLOW_SECONDS = 0.5
ID_SHOWN = 18
"""The time and twelve more bits of a UUID of version 7 (RFC 9562 section 5.7)."""

COLUMNS = ("TIME", "USER", "VERB", "OBJECT", "NAMESPACE", "VERDICT", "RULE", "STATUS", "TOOK", "ID")
WIDTHS = (20, 20, 8, 32, 14, 9, 20, 6, 7, ID_SHOWN)
"""Of the columns, where the rows to come are not known yet."""

CSV_COLUMNS = (
    "receivedAt", "username", "issuer", "verb", "apiGroup", "resource", "subresource", "namespace", "name", "uri",
    "effect", "rule", "verdict", "holdID", "complete", "code", "durationUs", "userAgent", "auditID",
)  # fmt: skip

_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


class Verdict(enum.StrEnum):
    """The words that `record.verdict` has."""

    ALLOWED = "allowed"
    DENIED = "denied"
    HELD = "held"
    APPROVED = "approved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"


User = Annotated[str, typer.Option(help="Only calls of this user.")]
Claims = Annotated[
    list[str] | None,
    typer.Option(
        "--claim",
        metavar="NAME=VALUE",
        help="Only calls of callers whose token has this claim; members of a list each count, those of an object have "
        "dotted names. Given several times, all must be there.",
    ),
]
Verb = Annotated[str, typer.Option(help="Only this verb: get, list, watch, create, delete, ...")]
Resource = Annotated[
    str, typer.Option(help="Only this resource: pods, pods/exec, 'pods/*' for any subresource, '*/scale'.")
]
APIGroup = Annotated[str | None, typer.Option(help="Only resources of this API group; '' is the core group.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Only calls in this namespace.")]
Name = Annotated[str, typer.Option(help="Only calls that name this object.")]
Since = Annotated[
    str,
    typer.Option(
        help="Only calls since then: 10m, 2h, 7d, 2026-01-31T12:00:00Z; today or yesterday, from midnight on in this "
        "machine's time zone."
    ),
]
Until = Annotated[str, typer.Option(help="Only calls before then; written as --since is.")]
VerdictWord = Annotated[Verdict | None, typer.Option("--verdict", help="Only this verdict.")]
Rule = Annotated[str, typer.Option(help="Only calls that this rule of the policy decided.")]
HoldID = Annotated[str, typer.Option("--hold", metavar="ID", help="Only the call that waited as this hold.")]


def list_calls(
    user: User = "",
    claim: Claims = None,
    verb: Verb = "",
    resource: Resource = "",
    api_group: APIGroup = None,
    namespace: Namespace = "",
    name: Name = "",
    verdict: VerdictWord = None,
    rule: Rule = "",
    hold: HoldID = "",
    since: Since = "",
    until: Until = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    page: Annotated[str, typer.Option(metavar="TOKEN", help="Go on where a list ended: the token it gave.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print calls as they end, until Ctrl-C.")] = False,
    output: ListFormat = ListOutput.TABLE,
    config: ConfigFile = None,
) -> None:
    """List calls, the newest first; or, with --follow, the ones to come, and with --since those before them.

    Filters combine: a call must match all of them. In JSON and YAML, `next` is the token of the next page; the calls
    that arrive meanwhile do not shift it.

    \b
    Example:
      holdfast audit list --since 10m
      holdfast audit list --resource secrets -n shop --name db      # who touched this Secret
      holdfast audit list --claim run_id=123 -o csv                 # all of a CI run
      holdfast audit list --verdict denied --since yesterday --until today
      holdfast audit list --resource 'pods/*' -n shop --name web-1  # exec, attach, logs, port-forwards of a pod
      holdfast audit list --follow --user agent -o json             # one object a line
    """
    filters = _filters(
        user=user,
        claims=claim,
        verb=verb,
        resource=resource,
        api_group=api_group,
        namespace=namespace,
        name=name,
        verdict=verdict,
        rule=rule,
        hold=hold,
        since=since,
        until=until,
    )
    if follow and (page or until):
        raise ConfigurationError("--follow has no end: it goes with neither --page nor --until.")
    position = _parse_page(page) if page else None
    with _open_store(read_settings(config)) as store:
        if follow:
            _follow(store, filters, output)
        rows = store.list_calls(filters, limit=limit + 1, before=position)
    _print_rows(rows[:limit], _page_token(rows[limit - 1]) if len(rows) > limit else "", output)


def show(
    audit_id: Annotated[str, typer.Argument(metavar="ID", help="The audit ID, or the beginning of it.")],
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Tell one call from beginning to end: who, what, the decision, the hold, both bodies, as recorded.

    \b
    Example:
      holdfast audit show 5f0c2a91
    """
    from holdfast.replay.story import export_story

    with _open_store(read_settings(config)) as store:
        story = store.load_call(audit_id)
    if output is Output.TABLE:
        _print_story(story)
    else:
        print_value(export_story(story), output)


def export(
    flows: Annotated[Path | None, typer.Option(metavar="FILE", help="The mitmproxy flow file to write (0600).")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file to write that proves the whole record (0600); - is standard output."
        ),
    ] = None,
    payloads: Annotated[bool, typer.Option(help="With --ledger: write the bodies too.")] = True,
    user: User = "",
    claim: Claims = None,
    verb: Verb = "",
    resource: Resource = "",
    api_group: APIGroup = None,
    namespace: Namespace = "",
    name: Name = "",
    verdict: VerdictWord = None,
    rule: Rule = "",
    hold: HoldID = "",
    since: Since = "",
    until: Until = "",
    config: ConfigFile = None,
) -> None:
    """Write calls as a mitmproxy flow file (--flows), or all of the record as a file that can be verified (--ledger).

    A flow file holds the calls that the filters choose, the oldest first, masked as recorded, with the story as
    comment. What proves the record is all of it, so there the filters do not apply.

    \b
    Example:
      holdfast audit export --flows agent.flows --user agent --since 1h
      mitmweb --rfile agent.flows --no-server
      holdfast audit export --ledger record.export
    """
    filters = _filters(
        user=user,
        claims=claim,
        verb=verb,
        resource=resource,
        api_group=api_group,
        namespace=namespace,
        name=name,
        verdict=verdict,
        rule=rule,
        hold=hold,
        since=since,
        until=until,
    )
    settings = read_settings(config)
    if (flows is None) == (ledger is None):
        raise ConfigurationError("expected --flows FILE or --ledger FILE.")
    if ledger is not None:
        _export_ledger(settings, ledger, filters, payloads=payloads)
        return
    assert flows is not None  # noqa: S101  one of them is there
    with _open_store(settings) as store:
        written = _write_flows(flows, settings.cluster, _with_progress(store.iter_calls(filters)))
    typer.echo(f"written: {written} calls to {flows}", err=True)


def _export_ledger(settings: Settings, file: Path, filters: Filters, *, payloads: bool) -> None:
    from holdfast.audit.store import ANY_CALL
    from holdfast.cli.audit.verify import export_ledger

    if filters != ANY_CALL:
        raise ConfigurationError("--ledger writes the whole record: filters belong to --flows.")
    export_ledger(settings, file, payloads=payloads)
    typer.echo(f"written: {file}", err=True)


def _filters(*, claims: list[str] | None, verdict: Verdict | None, since: str, until: str, **others: Any) -> Filters:
    from holdfast.audit.store import Filters

    now = datetime.now(UTC)
    return Filters(
        **others,
        claims=tuple(_parse_claim(claim) for claim in claims or ()),
        verdict=verdict.value if verdict else "",
        since=_read_moment(since, now, "--since"),
        until=_read_moment(until, now, "--until"),
    )


def _read_moment(text: str, now: datetime, option: str) -> datetime | None:
    if not text:
        return None
    moment = parse_since(text, now, option)
    if names_day(text):
        typer.echo(f"{option} {text}: {moment.isoformat()} ({moment.tzname()})", err=True)
    return moment


def _parse_claim(text: str) -> tuple[str, str]:
    from holdfast.audit.callers import LONGEST_CLAIM

    name, found, value = text.partition("=")
    if not name or not found or max(len(name), len(value)) > LONGEST_CLAIM:
        raise ConfigurationError(
            f"--claim: found {text!r}; expected NAME=VALUE, as run_id=123, of at most {LONGEST_CLAIM} characters each."
        )
    return name, value


def _page_token(row: CallRow) -> str:
    return f"{row.received_at}/{row.audit_id}"


def _parse_page(token: str) -> Position:
    moment, _, audit_id = token.partition("/")
    if not _MOMENT.fullmatch(moment) or not audit_id:
        raise ConfigurationError(f"--page: found {token!r}; expected the token that a list of calls gave as `next`.")
    return moment, audit_id


@contextmanager
def _open_store(settings: Settings) -> Iterator[AuditStore]:
    from holdfast.audit.store import AuditStore

    with open_reading(settings) as database, open_payloads(settings) as pieces:
        yield AuditStore(database, pieces)


def _print_rows(rows: Sequence[CallRow], next_page: str, output: ListOutput) -> None:
    from holdfast.replay.story import export_row

    match output:
        case ListOutput.TABLE:
            print_table(COLUMNS, map(_cells, rows))
        case ListOutput.CSV:
            print_csv([CSV_COLUMNS, *map(_csv_cells, rows)])
        case _:
            print_value({"calls": [export_row(row) for row in rows], "next": next_page}, output)
    if next_page and output in {ListOutput.TABLE, ListOutput.CSV}:
        typer.echo(f"there are more: --page {next_page}", err=True)


def _follow(store: AuditStore, filters: Filters, output: ListOutput) -> NoReturn:
    """Print calls as they end, for ever; with `since`, those first that ended between then and now."""
    following = store.follow_calls(filters)
    if output is ListOutput.TABLE:
        print_line(COLUMNS, WIDTHS)
    elif output is ListOutput.CSV:
        print_csv([CSV_COLUMNS])
    before = [row for row in store.iter_rows(filters) if row.complete] if filters.since else []
    _print_more(before, output)
    printed = {row.audit_id for row in before}
    while True:
        _print_more([row for row in following.poll() if row.audit_id not in printed], output)
        time.sleep(FOLLOW_SECONDS)


def _print_more(rows: Iterable[CallRow], output: ListOutput) -> None:
    from holdfast.replay.story import export_row

    for row in rows:
        match output:
            case ListOutput.TABLE:
                print_line(_cells(row), WIDTHS)
            case ListOutput.CSV:
                print_csv([_csv_cells(row)])
            case ListOutput.JSON:
                typer.echo(json.dumps(export_row(row)))
            case ListOutput.YAML:
                typer.echo(f"---\n{render_yaml(export_row(row))}")


def _cells(row: CallRow) -> tuple[str, ...]:
    from holdfast.replay.story import NOBODY, format_duration, name_object

    return (
        row.received_at[:19] + "Z",
        row.username or NOBODY,
        row.verb,
        name_object(row),
        row.namespace,
        row.verdict if row.complete else f"{row.verdict} ...",
        row.rule,
        str(row.code or ""),
        format_duration(row.duration_us) if row.duration_us is not None else "",
        row.audit_id[:ID_SHOWN],
    )


def _csv_cells(row: CallRow) -> list[object]:
    from holdfast.replay.story import export_row

    exported = export_row(row)
    return [exported[column] for column in CSV_COLUMNS]


def _print_story(story: CallStory) -> None:
    from holdfast.replay.story import describe, request_body, response_body

    print_pairs(describe(story))
    _print_body("Request body", request_body(story))
    _print_body("Response body", response_body(story))


def _print_body(title: str, body: Body) -> None:
    from holdfast.replay.story import show_body

    if body.content or body.withheld:
        typer.echo(f"\n{title}{f' ({body.media_type})' if body.media_type else ''}:\n{show_safely(show_body(body))}")


def _write_flows(file: Path, cluster: str, stories: Iterable[CallStory]) -> int:
    """Write a flow file whole, or leave what was there before; return how many calls are in it."""
    import tempfile

    from holdfast.hooks.flowfile import FlowFile
    from holdfast.replay.story import is_refused, request_body, response_body, summarize

    written = 0
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete_on_close=False) as stream:
        flows = FlowFile(stream, cluster)
        for story in stories:
            flows.add(
                story,
                comment=summarize(story),
                is_refused=is_refused(story),
                request=request_body(story).content,
                response=response_body(story).content,
            )
            written += 1
        stream.close()
        Path(stream.name).replace(file)
    return written


def _with_progress(stories: Iterator[CallStory]) -> Iterator[CallStory]:
    """Count on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} calls"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(stories)

"""`holdfast audit list | show | export`: calls listed, told and written as flows. They only ever read the database."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, parse_since, read_settings
from holdfast.cli.output import Output, print_pairs, print_table, print_value, show_safely
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.record import CallRow
    from holdfast.audit.store import AuditStore, CallStory, Filters
    from holdfast.replay.story import Body
    from holdfast.settings import Settings

ID_SHOWN = 18
"""The time and twelve more bits of a UUID of version 7 (RFC 9562 section 5.7)."""

User = Annotated[str, typer.Option(help="Only calls of this user.")]
Verb = Annotated[str, typer.Option(help="Only this verb: get, list, watch, create, delete, ...")]
Resource = Annotated[str, typer.Option(help="Only this resource: pods, pods/exec.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Only calls in this namespace.")]
Since = Annotated[str, typer.Option(help="Only calls since then: 10m, 2h, 7d, or 2026-01-31T12:00:00Z.")]
Verdict = Annotated[
    str,
    typer.Option(help="Only this verdict: allowed, denied, held, approved, expired, cancelled, refused."),
]


def list_calls(
    user: User = "",
    verb: Verb = "",
    resource: Resource = "",
    namespace: Namespace = "",
    since: Since = "",
    verdict: Verdict = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """List calls, the newest first.

    \b
    Example:
      holdfast audit list --user agent --since 10m
      holdfast audit list --verdict denied -o json
    """
    from holdfast.replay.story import export_row

    filters = _filters(user, verb, resource, namespace, since, verdict)
    with _open_store(read_settings(config)) as store:
        rows = store.list_calls(filters, limit=limit)
    if output is Output.TABLE:
        _print_rows(rows)
    else:
        print_value([export_row(row) for row in rows], output)


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
    verb: Verb = "",
    resource: Resource = "",
    namespace: Namespace = "",
    since: Since = "",
    verdict: Verdict = "",
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
    settings = read_settings(config)
    if (flows is None) == (ledger is None):
        raise ConfigurationError("expected --flows FILE or --ledger FILE.")
    if ledger is not None:
        from holdfast.cli.audit.verify import export_ledger

        if any((user, verb, resource, namespace, since, verdict)):
            raise ConfigurationError("--ledger writes the whole record: filters belong to --flows.")
        export_ledger(settings, ledger, payloads=payloads)
        typer.echo(f"written: {ledger}", err=True)
        return
    assert flows is not None  # noqa: S101  one of them is there
    filters = _filters(user, verb, resource, namespace, since, verdict)
    with _open_store(settings) as store:
        written = _write_flows(flows, settings.cluster, _with_progress(store.iter_calls(filters)))
    typer.echo(f"written: {written} calls to {flows}", err=True)


def _filters(user: str, verb: str, resource: str, namespace: str, since: str, verdict: str) -> Filters:
    from holdfast.audit.store import Filters

    moment = parse_since(since, datetime.now(UTC)) if since else None
    return Filters(user, verb, resource, namespace, verdict, moment)


@contextmanager
def _open_store(settings: Settings) -> Iterator[AuditStore]:
    from holdfast.audit.store import AuditStore
    from holdfast.database import Database

    database = Database.open_readonly(settings.database_url)
    try:
        yield AuditStore(database)
    finally:
        database.close()


def _print_rows(rows: Iterable[CallRow]) -> None:
    from holdfast.replay.story import NOBODY, format_duration, name_object

    columns = ("TIME", "USER", "VERB", "OBJECT", "NAMESPACE", "VERDICT", "RULE", "STATUS", "TOOK", "ID")
    cells = (
        (
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
        for row in rows
    )
    print_table(columns, cells)


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

"""`holdfast audit list | show`: calls listed and told."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from holdfast.cli.audit.filters import FilterOptions, suggest_resources, takes_filters
from holdfast.cli.audit.reading import open_store
from holdfast.cli.options import ConfigFile, ListFormat, OutputFormat, read_settings
from holdfast.cli.output import (
    ListOutput,
    Output,
    print_csv,
    print_line,
    print_pairs,
    print_table,
    print_value,
    render_yaml,
    show_on_one_line,
    show_safely,
)
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast.audit.record import CallRow
    from holdfast.audit.store import AuditStore, CallStory, Filters, Position
    from holdfast.replay.story import Body

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


@takes_filters
def list_calls(
    *,
    chosen: FilterOptions,
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
    filters = chosen.filters()
    if follow and (page or chosen.until):
        raise ConfigurationError("--follow has no end: it goes with neither --page nor --until.")
    position = _parse_page(page) if page else None
    with open_store(read_settings(config)) as store:
        if follow:
            _follow(store, filters, output)
        rows = store.list_calls(filters, limit=limit + 1, before=position)
        if not rows:
            _tell_none(store, filters.resource)
    _print_rows(rows[:limit], _page_token(rows[limit - 1]) if len(rows) > limit else "", output)


def _tell_none(store: AuditStore, resource: str) -> None:
    """Say that nothing was found, and what may have been meant."""
    suggested = suggest_resources(resource, store.resources()) if resource else []
    hint = f"; did you mean --resource {' or '.join(map(show_on_one_line, suggested))}?" if suggested else ""
    typer.echo(f"no call matches{hint}", err=True)


def show(
    audit_id: Annotated[str, typer.Argument(metavar="ID", help="The audit ID or a hold's, or the beginning of it.")],
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Tell one call from beginning to end: who, what, the decision, the hold, both bodies, as recorded.

    \b
    Example:
      holdfast audit show 5f0c2a91
      holdfast audit show h-4k7q2m9xza
    """
    from holdfast.replay.story import export_story

    with open_store(read_settings(config)) as store:
        story = store.load_call(audit_id)
    if output is Output.TABLE:
        _print_story(story)
    else:
        print_value(export_story(story), output)


def _page_token(row: CallRow) -> str:
    return f"{row.received_at}/{row.audit_id}"


def _parse_page(token: str) -> Position:
    moment, _, audit_id = token.partition("/")
    if not _MOMENT.fullmatch(moment) or not audit_id:
        raise ConfigurationError(f"--page: found {token!r}; expected the token that a list of calls gave as `next`.")
    return moment, audit_id


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

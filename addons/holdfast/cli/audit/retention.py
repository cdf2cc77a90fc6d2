"""`holdfast audit retention plan | run` and `holdfast audit erase`: what goes, and the record that says so."""

from __future__ import annotations

import fcntl
import getpass
import sys
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, parse_since, read_settings
from holdfast.cli.output import Output, print_table, print_value
from holdfast.errors import ConfigurationError, Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.retention import DayPlan, Eraser, PayloadRule, StoredBody, Wanted
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.settings import Settings

    type Plan = tuple[list[DayPlan], dict[PayloadRule, list[StoredBody]]]

app = typer.Typer(help="Drop what is too old or too much, as the settings say.", no_args_is_help=True)
RequestedBy = Annotated[str, typer.Option(help="Who wants it; the name of the user who runs this when absent.")]


@app.command()
def plan(output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Say what `run` would drop and erase, and change nothing.

    \b
    Example:
      holdfast audit retention plan -o json
    """
    settings = read_settings(config)
    with ExitStack() as stack:
        store = _open_store(settings, stack)
        days, bodies = _plan(settings, store, datetime.now(UTC))
        _print_plan(days, bodies, output)


@app.command()
def run(requested_by: RequestedBy = "", output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Drop and erase what the settings say (audit.retention), each after a record of it; run it once a day.

    \b
    Example:
      holdfast audit retention run --requested-by nightly-job
    """
    settings, now = read_settings(config), datetime.now(UTC)
    with ExitStack() as stack:
        stack.enter_context(_alone(settings))
        store = _open_store(settings, stack)
        days, bodies = _plan(settings, store, now)
        if days or any(bodies.values()):
            eraser = _open_eraser(settings, store, requested_by, "retention is done", stack)
            for rule, found in bodies.items():
                _erase(eraser, found, f"retention rule {rule.name}", rule.name)
            for day in days:
                eraser.drop_day(day)
        _print_plan(days, bodies, output)


def erase(
    reason: Annotated[str, typer.Option(help="Why; goes into the record.")],
    user: Annotated[str, typer.Option(help="The bodies of all calls of this user.")] = "",
    issuer: Annotated[str, typer.Option(help="Only of the user whom this issuer names so.")] = "",
    call: Annotated[str, typer.Option(metavar="ID", help="The bodies of one call, by its whole audit ID.")] = "",
    since: Annotated[str, typer.Option(help="Only calls since then: 10m, 2h, 7d, or 2026-01-31T12:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Only calls before then.")] = "",
    requested_by: RequestedBy = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Erase the stored bodies of one person's calls, or of one call. The record of the calls themselves stays.

    Bodies go with the salts of their commitments, so that nothing in the record tells of them any more; every proof
    still holds, and `holdfast audit verify` reports them as redacted, by whom and why.

    \b
    Example:
      holdfast audit erase --user alice --reason "a request under article 17, ticket 4711"
    """
    if not user and not call:
        raise ConfigurationError("expected --user or --call: whose bodies are to go.")
    settings = read_settings(config)
    with ExitStack() as stack:
        stack.enter_context(_alone(settings))
        store = _open_store(settings, stack)
        found = list(store.bodies(_wanted(user, issuer, call, since, until)))
        size = sum(body.bytes for body in found)
        typer.echo(f"{len(found)} bodies of {size} bytes are to be erased for good.", err=True)
        if found and not yes and not (sys.stdin.isatty() and typer.confirm("Erase them?", err=True)):
            typer.echo("nothing was erased; give --yes where nobody can be asked", err=True)
            raise typer.Exit(1)
        if found:
            _erase(_open_eraser(settings, store, requested_by, "the erasure is done", stack), found, reason, "")
    told = {"bodies": len(found), "bytes": size}
    if output is not Output.TABLE:
        print_value(told, output)
    else:
        typer.echo(f"erased: {len(found)} bodies", err=True)


def _wanted(user: str, issuer: str, call: str, since: str, until: str) -> Wanted:
    from holdfast.audit.retention import Wanted

    now = datetime.now(UTC)
    first, end = (parse_since(text, now) if text else None for text in (since, until))
    return Wanted(user, issuer, call, first, end)


def _open_store(settings: Settings, stack: ExitStack) -> RetentionStore:
    from holdfast.audit.objects import open_pieces
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.database import Database

    database = stack.enter_context(closing(Database.open(settings.database_url, create=False)))
    pieces = open_pieces(settings.audit.payloads, settings.audit.deadline_seconds)
    if pieces is not None:
        stack.callback(pieces.close)
    return RetentionStore(database, pieces)


def _open_eraser(settings: Settings, store: RetentionStore, requested_by: str, end: str, stack: ExitStack) -> Eraser:
    """Open the log that says what is erased; it is closed and anchored at the end of the command."""
    from holdfast.audit.anchors.opening import open_publisher
    from holdfast.audit.keys import MAINTENANCE
    from holdfast.audit.opening import open_ledger
    from holdfast.audit.retention import Eraser
    from holdfast.audit.store.ledger import LedgerStore
    from holdfast.audit.trees import LedgerTrees
    from holdfast.database import Database

    database = stack.enter_context(closing(Database.open(settings.database_url, create=False)))
    ledger = open_ledger(settings, database, MAINTENANCE)
    publisher = open_publisher(settings, LedgerTrees(ledger, LedgerStore(database)))
    publisher.start()
    stack.callback(publisher.stop)
    stack.callback(ledger.close, end)
    return Eraser(store, ledger, requested_by or getpass.getuser(), lambda: datetime.now(UTC))


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Only one command at a time erases. Raises Conflict."""
    file = settings.state_dir / "audit.maintenance.lock"
    try:
        lock = file.open("w")
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be made: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("another command that erases is under way; wait for its end") from error
        yield


def _plan(settings: Settings, store: RetentionStore, now: datetime) -> Plan:
    """What is to go: whole days, and by rule the bodies of days that stay."""
    from holdfast.audit.retention import Wanted, last_kept_day, plan_bodies, plan_days, read_rules

    retention = settings.audit.retention
    days = plan_days(store.usage(now), retention, now)
    rules = read_rules(retention.payloads)
    latest = max((last_kept_day(now, rule.days) for rule in rules), default="")
    bodies = store.bodies(Wanted(before_day=latest)) if rules else ()
    return days, plan_bodies(bodies, rules, {day.usage.day for day in days}, now)


def _erase(eraser: Eraser, bodies: Iterable[StoredBody], reason: str, rule: str) -> None:
    """Erase with a bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    found = list(bodies)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("erasing", total=len(found))
        for number in eraser.erase(found, reason, rule):
            bar.update(task, advance=number)


def _print_plan(days: list[DayPlan], bodies: dict[PayloadRule, list[StoredBody]], output: Output) -> None:
    if output is not Output.TABLE:
        print_value(
            {
                "days": [
                    {
                        "day": plan.usage.day,
                        "logs": plan.usage.logs,
                        "records": plan.usage.records,
                        "bytes": plan.usage.bytes,
                        "reason": plan.reason,
                    }
                    for plan in days
                ],
                "payloads": [
                    {"rule": rule.name, "bodies": len(found), "bytes": sum(body.bytes for body in found)}
                    for rule, found in bodies.items()
                ],
            },
            output,
        )
        return
    rows = [
        (plan.usage.day, str(plan.usage.logs), str(plan.usage.records), str(plan.usage.bytes), plan.reason)
        for plan in days
    ]
    rows += [
        ("", "", f"{len(found)} bodies", str(sum(body.bytes for body in found)), f"rule {rule.name}")
        for rule, found in bodies.items()
        if found
    ]
    if rows:
        print_table(("DAY", "LOGS", "RECORDS", "BYTES", "WHY"), rows)
    else:
        typer.echo("nothing is to go", err=True)

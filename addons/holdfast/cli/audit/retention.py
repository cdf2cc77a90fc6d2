"""`holdfast audit retention plan | run` and `holdfast audit erase`: what goes, and the record that says so."""

from __future__ import annotations

import getpass
import os
import sys
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, parse_since, read_settings
from holdfast.cli.output import Output, print_table, print_value
from holdfast.errors import ConfigurationError, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holdfast.audit.erasing import Eraser
    from holdfast.audit.ledger import Ledger
    from holdfast.audit.objects import ObjectPieces
    from holdfast.audit.record import CallRow
    from holdfast.audit.retention import CallTest, Day, DayPlan, PayloadRule, StoredBody, Wanted, Why
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.database import Database
    from holdfast.settings import PayloadRetention, Settings

app = typer.Typer(help="Drop what is too old or too much, as the settings say.", no_args_is_help=True)
RequestedBy = Annotated[str, typer.Option(help="Who wants it; the name of the user who runs this when absent.")]
Gone = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REPLICA", help="A gateway that will never write again: its logs that were never closed count as ended."
    ),
]


class Outcome:
    """What is to go, or went: days, and bodies by rule; the day that could not go; the bytes used by all.

    `unattributed` counts, by log, bodies that stay because nothing is left of their calls that a rule could go by.
    """

    def __init__(self, used_before: int) -> None:
        self.days: list[DayPlan] = []
        self.bodies: Counter[str] = Counter()
        self.body_bytes: Counter[str] = Counter()
        self.unattributed: Counter[str] = Counter()
        self.blocked: Day | None = None
        self.used_before = used_before
        self.used_after: int | None = None

    def add_day(self, plan: DayPlan) -> None:
        """Take in a day that is to be dropped, if it can be."""
        if plan.day.unended:
            self.blocked = plan.day
        else:
            self.days.append(plan)

    def add_bodies(self, rule: str, bodies: int, size: int) -> None:
        """Count bodies that a rule erases."""
        self.bodies[rule] += bodies
        self.body_bytes[rule] += size


@app.command()
def plan(gone: Gone = None, output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Say what `run` would drop and erase, and change nothing. Bytes are estimated.

    \b
    Example:
      holdfast audit retention plan -o json
    """
    settings, now = read_settings(config), datetime.now(UTC)
    with ExitStack() as stack:
        database = _open_database(settings, stack, read_only=True)
        store = _open_store(settings, database, None, gone)
        outcome = Outcome(store.used_bytes())
        _plan(settings, store, outcome, now)
    _print_outcome(outcome, output)


@app.command()
def run(
    requested_by: RequestedBy = "", gone: Gone = None, output: OutputFormat = Output.TABLE, config: ConfigFile = None
) -> None:
    """Drop and erase what the settings say (audit.retention), each after a record of it; run it once a day.

    Whatever an earlier run was kept from finishing is finished first.

    \b
    Example:
      holdfast audit retention run --requested-by nightly-job
    """
    settings, now = read_settings(config), datetime.now(UTC)
    with ExitStack() as stack:
        store, eraser = _open_eraser(settings, requested_by, gone, stack)
        outcome = Outcome(store.used_bytes())
        with _progress("records") as advance:
            _advance(eraser.finish_earlier(), advance)
            _run(settings, store, eraser, outcome, now, advance)
        outcome.used_after = store.used_bytes()
    _print_outcome(outcome, output)


def erase(
    reason: Annotated[str, typer.Option(help="Why; goes into the record.")],
    user: Annotated[str, typer.Option(help="The bodies of all calls of this user.")] = "",
    issuer: Annotated[str, typer.Option(help="Only of the user whom this issuer names so.")] = "",
    call: Annotated[
        str, typer.Option(metavar="ID", help="The bodies of one call; the beginning of its ID will do.")
    ] = "",
    since: Annotated[str, typer.Option(help="Only calls since then: 10m, 2h, 7d, or 2026-01-31T12:00:00Z.")] = "",
    until: Annotated[str, typer.Option(help="Only calls before then.")] = "",
    requested_by: RequestedBy = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Erase the stored bodies of one person's calls, or of one call. The record of the calls themselves stays.

    Bodies go with the salts of their commitments, so that nothing in the record tells of them any more; every proof
    still holds, and `holdfast audit verify` reports them as redacted, by whom and why. Backups are yours to erase.

    \b
    Example:
      holdfast audit erase --user alice --reason "a request under article 17, ticket 4711"
    """
    wanted = _wanted(user, issuer, call, since, until)
    if not reason.strip():
        raise ConfigurationError("--reason: expected why; it goes into the record.")
    settings = read_settings(config)
    with ExitStack() as stack:
        store, eraser = _open_eraser(settings, requested_by, None, stack)
        if call:
            _require_one_call(store, call)
        if not yes:
            _ask(store, wanted)
        erased, unattributed = _erase(store, eraser, wanted, reason)
    if output is not Output.TABLE:
        print_value({**erased, "unattributed": _told_unattributed(unattributed)}, output)
        return
    typer.echo(f"erased: {erased['bodies']} bodies, {erased['bytes']} bytes")
    if yes:
        _print_unattributed(unattributed)


def compile_test(rule: PayloadRetention) -> CallTest:
    """Read a rule's globs as those of a policy are read; they are matched against what lists show of a call."""
    from holdfast.exchange import RequestInfo
    from holdfast.policy.matching import compile_globs, compile_resources

    is_resource = compile_resources(rule.resources)
    tests: list[tuple[Callable[[str], bool], Callable[[CallRow], str]]] = [
        (compile_globs(rule.verbs), lambda call: call.verb),
        (compile_globs(rule.namespaces), lambda call: call.namespace),
        (compile_globs(rule.users), lambda call: call.username),
        (compile_globs(rule.verdicts), lambda call: call.verdict),
    ]

    def matches(call: CallRow) -> bool:
        asked = RequestInfo(
            bool(call.resource), "", b"", "", call.verb, resource=call.resource, subresource=call.subresource
        )
        return is_resource(asked) and all(test(text_of(call)) for test, text_of in tests)

    return matches


def _wanted(user: str, issuer: str, call: str, since: str, until: str) -> Wanted:
    from holdfast.audit.record import COLUMN_BYTES
    from holdfast.audit.retention import Wanted

    if not user and not call:
        raise ConfigurationError("expected --user or --call: whose bodies are to go.")
    if len(user.encode(errors="replace")) >= COLUMN_BYTES:
        raise ConfigurationError(
            f"--user: has {COLUMN_BYTES} bytes or more, and lists keep no more of a name; erase call by call (--call)."
        )
    now = datetime.now(UTC)
    first, end = (parse_since(text, now) if text else None for text in (since, until))
    return Wanted(user, issuer, call, first, end)


def _require_one_call(store: RetentionStore, call: str) -> None:
    found = store.resolve_call(call)
    if not found:
        raise NotFound(f"no call in the record has an audit ID that starts with {call!r}")
    if len(found) > 1:
        raise Conflict(f"several calls have an audit ID that starts with {call!r}; give more of it")


def _ask(store: RetentionStore, wanted: Wanted) -> None:
    """Say what would go, and have a person agree."""
    unattributed: Counter[str] = Counter()
    chosen = _attributed(_choose_wanted(store, wanted, ""), unattributed)
    bodies, size = _measure(store, ((body, "") for body, _ in chosen), lambda *_: None)
    _print_unattributed(unattributed)
    typer.echo(f"{bodies} bodies of {size} bytes are to be erased for good.", err=True)
    if bodies and not (sys.stdin.isatty() and typer.confirm("Erase them?", err=True)):
        typer.echo("nothing was erased; give --yes where nobody can be asked", err=True)
        raise typer.Exit(1)


def _erase(store: RetentionStore, eraser: Eraser, wanted: Wanted, reason: str) -> tuple[dict[str, int], Counter[str]]:
    told, unattributed = {"bodies": 0, "bytes": 0}, Counter[str]()
    with _progress("bodies") as advance:
        for erased in eraser.erase(_attributed(_choose_wanted(store, wanted, reason), unattributed)):
            told["bodies"] += erased.bodies
            told["bytes"] += erased.bytes
            advance(erased.bodies)
    return told, unattributed


def _choose_wanted(store: RetentionStore, wanted: Wanted, reason: str) -> Iterator[tuple[StoredBody, Why | None]]:
    from holdfast.audit.retention import Why, choose_wanted

    return choose_wanted(store.bodies(wanted.call, first_day=wanted.first_day), wanted, Why(reason))


def _attributed(
    chosen: Iterable[tuple[StoredBody, Why | None]], unattributed: Counter[str]
) -> Iterator[tuple[StoredBody, Why]]:
    """Yield what is to be erased; count what stays because nobody can tell whose it is."""
    for body, why in chosen:
        if why is None:
            unattributed[body.log.origin] += 1
        else:
            yield body, why


def _open_database(settings: Settings, stack: ExitStack, *, read_only: bool) -> Database:
    from holdfast.database import Database

    url = settings.database_url
    database = Database.open_readonly(url) if read_only else Database.open(url, create=False)
    return stack.enter_context(closing(database))


def _open_store(
    settings: Settings, database: Database, pieces: ObjectPieces | None, gone: list[str] | None
) -> RetentionStore:
    from holdfast.audit.keys import ROLES
    from holdfast.audit.store.retention import RetentionStore

    return RetentionStore(database, pieces, [replica + role for replica in gone or () for role in ROLES])


def _open_eraser(
    settings: Settings, requested_by: str, gone: list[str] | None, stack: ExitStack
) -> tuple[RetentionStore, Eraser]:
    """Open what erases, with every other command that erases kept out."""
    from holdfast.audit.erasing import Eraser
    from holdfast.audit.objects import open_pieces
    from holdfast.audit.store.dropping import DayDropper

    database = _open_database(settings, stack, read_only=False)
    pieces = open_pieces(settings.audit.payloads, settings.audit.deadline_seconds)
    if pieces is not None:
        stack.callback(pieces.close)
    store = _open_store(settings, database, pieces, gone)
    stack.enter_context(store.alone(settings.state_dir / "audit.maintenance.lock"))
    eraser = Eraser(
        store,
        DayDropper(database, has_pieces=pieces is not None),
        lambda: _open_log(settings, database, stack),
        requested_by or _who_runs_this(),
        lambda: datetime.now(UTC),
    )
    return store, eraser


def _open_log(settings: Settings, database: Database, stack: ExitStack) -> Ledger:
    """Open the log that says what is erased; it is closed and anchored at the end of the command."""
    from holdfast.audit.anchors.opening import open_publisher
    from holdfast.audit.keys import MAINTENANCE
    from holdfast.audit.opening import open_ledger
    from holdfast.audit.store.ledger import LedgerStore
    from holdfast.audit.trees import LedgerTrees

    ledger = open_ledger(settings, database, MAINTENANCE)
    publisher = open_publisher(settings, LedgerTrees(ledger, LedgerStore(database)))
    publisher.start()
    stack.callback(publisher.stop)
    stack.callback(ledger.close, "the command is over")
    return ledger


def _who_runs_this() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _rules(settings: Settings, now: datetime) -> list[PayloadRule]:
    from holdfast.audit.retention import read_rules

    return read_rules(settings.audit.retention.payloads, compile_test, now)


def _chosen(
    store: RetentionStore, rules: list[PayloadRule], dropped: set[str], outcome: Outcome
) -> Iterator[tuple[StoredBody, Why]]:
    """Yield the bodies that rules erase, of days that stay."""
    from holdfast.audit.retention import choose_bodies

    if rules:
        found = store.bodies(before_day=max(rule.kept_from for rule in rules))
        staying = (body for body in found if body.log.day not in dropped)
        yield from _attributed(choose_bodies(staying, rules), outcome.unattributed)


def _plan(settings: Settings, store: RetentionStore, outcome: Outcome, now: datetime) -> None:
    from holdfast.audit.retention import plan_days

    retention = settings.audit.retention
    by_age = plan_days(store.days(), retention.model_copy(update={"max_bytes": None}), 0, store.size_of, now)
    old = {plan.day.day for plan in by_age if not plan.day.unended}
    chosen = _chosen(store, _rules(settings, now), old, outcome)
    _measure(store, ((body, why.rule) for body, why in chosen), outcome.add_bodies)
    used = outcome.used_before - outcome.body_bytes.total()
    for planned in plan_days(store.days(), retention, used, store.size_of, now):
        outcome.add_day(planned)


def _measure(
    store: RetentionStore, bodies: Iterable[tuple[StoredBody, str]], add: Callable[[str, int, int], None]
) -> tuple[int, int]:
    """Count bodies and what erasing them would free, in all and by rule; they come day by day and log by log."""
    from itertools import batched, groupby

    number = total = 0
    for day, of_day in groupby(bodies, key=lambda found: found[0].log.day):
        references = store.references(day)
        for (_, rule), group in groupby(of_day, key=lambda found: (found[0].log.id, found[1])):
            for some in batched((body for body, _ in group), 500):
                size = store.measure(some[0].log, [body.place for body in some], references)
                add(rule, len(some), size)
                number, total = number + len(some), total + size
    return number, total


def _run(
    settings: Settings,
    store: RetentionStore,
    eraser: Eraser,
    outcome: Outcome,
    now: datetime,
    advance: Callable[[int], None],
) -> None:
    """By age, by rule, then by size: a day at a time, for what that frees is only known afterwards."""
    from holdfast.audit.retention import plan_days

    retention = settings.audit.retention
    by_age = retention.model_copy(update={"max_bytes": None})
    for planned in plan_days(store.days(), by_age, 0, store.size_of, now):
        _drop(eraser, planned, outcome, advance)
    for erased in eraser.erase(_chosen(store, _rules(settings, now), set(), outcome)):
        outcome.add_bodies(erased.why.rule, erased.bodies, erased.bytes)
        advance(erased.bodies)
    while outcome.blocked is None:
        next_day = next(plan_days(store.days(), retention, store.used_bytes(), store.size_of, now), None)
        if next_day is None:
            return
        _drop(eraser, next_day, outcome, advance)


def _drop(eraser: Eraser, planned: DayPlan, outcome: Outcome, advance: Callable[[int], None]) -> None:
    outcome.add_day(planned)
    if not planned.day.unended:
        _advance(eraser.drop_day(planned), advance)


def _advance(steps: Iterable[int], advance: Callable[[int], None]) -> None:
    for number in steps:
        advance(number)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """Count on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn(f"{{task.completed:.0f}} {what}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda number: progress.update(task, advance=number)


def _print_outcome(outcome: Outcome, output: Output) -> None:
    if output is not Output.TABLE:
        print_value(_told(outcome), output)
        return
    rows = [
        (
            plan.day.day,
            str(len(plan.day.logs)),
            str(plan.day.records),
            "",
            str(plan.bytes),
            plan.why.rule,
            plan.why.reason,
        )
        for plan in outcome.days
    ]
    rows += [
        ("", "", "", str(number), str(outcome.body_bytes[rule]), rule, "") for rule, number in outcome.bodies.items()
    ]
    if rows:
        print_table(("DAY", "LOGS", "RECORDS", "BODIES", "BYTES", "RULE", "WHY"), rows)
    else:
        typer.echo("nothing is to go", err=True)
    _print_unattributed(outcome.unattributed)
    used = f"used: {outcome.used_before} bytes"
    typer.echo(used if outcome.used_after is None else f"{used} before, {outcome.used_after} after", err=True)
    if outcome.blocked is not None:
        names = ", ".join(log.origin for log in outcome.blocked.unended)
        typer.echo(
            f"{outcome.blocked.day} and what is younger stays: never closed, and not gone on from: {names}. Start that "
            "gateway again, or say that it is gone for good with --gone REPLICA.",
            err=True,
        )


def _print_unattributed(unattributed: Counter[str]) -> None:
    for log, number in unattributed.items():
        typer.echo(
            f"{number} bodies in {log} stay: of their calls nothing else is left, so nobody can tell whether they are "
            "meant. They go with their day, by a payload rule for all calls, or with `holdfast audit erase --call ID`.",
            err=True,
        )


def _told_unattributed(unattributed: Counter[str]) -> list[dict[str, Any]]:
    return [{"log": log, "bodies": number} for log, number in unattributed.items()]


def _told(outcome: Outcome) -> dict[str, Any]:
    blocked = outcome.blocked
    return {
        "days": [
            {
                "day": plan.day.day,
                "logs": len(plan.day.logs),
                "records": plan.day.records,
                "bytes": plan.bytes,
                "rule": plan.why.rule,
                "reason": plan.why.reason,
            }
            for plan in outcome.days
        ],
        "payloads": [
            {"rule": rule, "bodies": number, "bytes": outcome.body_bytes[rule]}
            for rule, number in outcome.bodies.items()
        ],
        "unattributed": _told_unattributed(outcome.unattributed),
        "blocked": blocked and {"day": blocked.day, "logs": [log.origin for log in blocked.unended]},
        "usedBytes": outcome.used_before,
        **({} if outcome.used_after is None else {"usedBytesAfter": outcome.used_after}),
    }

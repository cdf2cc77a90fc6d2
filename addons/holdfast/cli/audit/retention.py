"""`holdfast audit retention plan | run`: what goes by age, size and rule, as the settings say."""

from __future__ import annotations

from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.audit.maintenance import (
    RequestedBy,
    describe_unattributed,
    open_eraser,
    open_store,
    print_unattributed,
)
from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_table, print_value, show_count

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.audit.maintenance import Outcome
    from holdfast.audit.record import CallRow
    from holdfast.audit.retention import CallTest, PayloadRule
    from holdfast.settings.audit import PayloadRetention, Retention

app = typer.Typer(help="Drop what is too old or too much, as the settings say.", no_args_is_help=True)
Gone = Annotated[
    list[str] | None,
    typer.Option(
        metavar="REPLICA", help="A gateway that will never write again: its logs that were never closed count as ended."
    ),
]


@app.command()
def plan(gone: Gone = None, output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Say what `run` would drop and erase, and change nothing. Bytes are estimated.

    \b
    Example:
      holdfast audit retention plan -o json
    """
    from holdfast.audit.maintenance import plan_retention
    from holdfast.database import Database

    settings, now = read_settings(config), datetime.now(UTC)
    retention = settings.audit.retention
    with closing(Database.open_readonly(settings.database_url)) as database:
        outcome = plan_retention(open_store(database, gone=gone), retention, _rules(retention, now), now)
    _print_outcome(outcome, retention, output)
    _tell_unset(retention, config)


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
    from holdfast.audit.maintenance import run_retention

    settings, now = read_settings(config), datetime.now(UTC)
    retention = settings.audit.retention
    with ExitStack() as stack:
        store, eraser = open_eraser(settings, requested_by, stack, gone)
        with show_count("records") as advance:
            outcome = run_retention(store, eraser, retention, _rules(retention, now), now, advance)
    _print_outcome(outcome, retention, output)
    _tell_unset(retention, config)


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


def _rules(retention: Retention, now: datetime) -> list[PayloadRule]:
    from holdfast.audit.retention import read_rules

    return read_rules(retention.payloads, compile_test, now)


def _tell_unset(retention: Retention, config: Path | None) -> None:
    from holdfast.settings import DEFAULT_FILE
    from holdfast.settings.audit import Retention

    if retention == Retention():
        typer.echo(f"audit.retention is not set in {config or DEFAULT_FILE}: nothing is ever dropped", err=True)


def _excess(outcome: Outcome, retention: Retention) -> int:
    """By how many bytes the record takes more than it may, when all is gone that can go."""
    return max(0, outcome.used_then - retention.max_bytes) if retention.max_bytes is not None else 0


def _print_outcome(outcome: Outcome, retention: Retention, output: Output) -> None:
    excess = _excess(outcome, retention)
    if output is not Output.TABLE:
        print_value(_told(outcome) | {"excessBytes": excess}, output)
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
    erasure = outcome.erasure
    rows += [("", "", "", str(number), str(erasure.bytes[rule]), rule, "") for rule, number in erasure.bodies.items()]
    if rows:
        print_table(("DAY", "LOGS", "RECORDS", "BODIES", "BYTES", "RULE", "WHY"), rows)
    else:
        typer.echo("nothing is to go", err=True)
    print_unattributed(erasure.unattributed)
    used = f"used: {outcome.used_before} bytes"
    typer.echo(used if outcome.used_after is None else f"{used} before, {outcome.used_after} after", err=True)
    if excess:
        only_today = "only today is left, and today stays"
        why = only_today if outcome.blocked is None else f"{outcome.blocked.day} cannot go"
        typer.echo(f"over maxBytes by {excess} bytes, and nothing more goes: {why}", err=True)
    if outcome.blocked is not None:
        names = ", ".join(log.origin for log in outcome.blocked.unended)
        typer.echo(
            f"{outcome.blocked.day} and what is younger stays: never closed, and not gone on from: {names}. Start that "
            "gateway again, or say that it is gone for good with --gone REPLICA.",
            err=True,
        )


def _told(outcome: Outcome) -> dict[str, Any]:
    blocked, erasure = outcome.blocked, outcome.erasure
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
            {"rule": rule, "bodies": number, "bytes": erasure.bytes[rule]} for rule, number in erasure.bodies.items()
        ],
        "unattributed": describe_unattributed(erasure.unattributed),
        "blocked": blocked and {"day": blocked.day, "logs": [log.origin for log in blocked.unended]},
        "usedBytes": outcome.used_before,
        **({} if outcome.used_after is None else {"usedBytesAfter": outcome.used_after}),
    }

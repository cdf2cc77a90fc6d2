"""`holdfast identity`: who somebody is for the gateway, and whom it lets in no more."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.audit.maintenance import LOCK_FILE, RequestedBy, open_log, open_store, who_runs_this
from holdfast.cli.audit.reading import open_reading
from holdfast.cli.explain import explain
from holdfast.cli.identity_log import list_log
from holdfast.cli.options import ConfigFile, OutputFormat, parse_age, read_settings, require_reason
from holdfast.cli.output import Output, print_table, print_value, show_on_one_line
from holdfast.errors import ConfigurationError, HoldfastError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.store import AuditStore
    from holdfast.database import Database
    from holdfast.identity.denylist import Revocation, Scope
    from holdfast.identity.store import RevocationStore
    from holdfast.settings import Settings

LOOKED_AT = 500
"""So many of the calls of a name are looked at for one of its issuer."""

COLUMNS = ("ID", "SCOPE", "VALUE", "ISSUER", "UNTIL", "BY", "REASON")

app = typer.Typer(help="Who somebody is for the gateway, and whom it lets in no more.", no_args_is_help=True)
app.command()(explain)
app.command("log")(list_log)


@app.command()
def revoke(
    reason: Annotated[str, typer.Option(help="Why; goes into the record.")],
    issuer: Annotated[str, typer.Option(metavar="URL", help="Whose tokens; not asked where one is trusted.")] = "",
    token_id: Annotated[str, typer.Option(metavar="JTI", help="One token, by its jti.")] = "",
    subject: Annotated[str, typer.Option(metavar="SUB", help="All tokens of a subject, by its sub.")] = "",
    user: Annotated[str, typer.Option(metavar="NAME", help="All tokens of a user, by the name in the record.")] = "",
    lasting: Annotated[
        str, typer.Option("--for", metavar="AGE", help="For so long (30m, 8h, 7d), or until lifted.")
    ] = "",
    requested_by: RequestedBy = "",
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Let somebody in no more: a token, a subject or a user. What they have under way ends within seconds.

    It is on record before it counts, and counts for every gateway of the database. What is revoked for a time is
    extended by a longer one, or by none: it keeps its ID, and lets nobody in meanwhile.

    \b
    Example:
      holdfast identity revoke --subject repo:org/app:ref:refs/heads/main --reason "the runner was taken over"
    """
    from holdfast.identity.denylist import ID_PREFIX, Revocation

    scope, value = _one_scope(token_id, subject, user)
    reason = require_reason(reason)
    settings = read_settings(config)
    now = datetime.now(UTC)
    revocation = Revocation(
        id=ID_PREFIX + secrets.token_hex(5),
        issuer=_which_issuer(settings, issuer),
        scope=scope,
        value=value,
        reason=reason,
        revoked_by=requested_by or who_runs_this(),
        revoked_at=now,
        until=now + parse_age(lasting, "--for") if lasting else None,
    )
    with _opened(settings) as (store, ledger):
        shorter = store.find_shorter(revocation)
        if shorter is not None:
            revocation = replace(revocation, id=shorter.id)
        _record(ledger, revocation, revocation.revoked_by, reason, lifted=False)
        store.add(revocation)
    _print_one(revocation, "revoked" if shorter is None else "extended", output)
    _tell_unknown(settings, revocation)


@app.command()
def restore(
    revocation_id: Annotated[str, typer.Argument(metavar="ID", help="The revocation, or the beginning of its ID.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the record.")],
    requested_by: RequestedBy = "",
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Lift a revocation: let them in again. It is on record first.

    \b
    Example:
      holdfast identity restore r-1f0c --reason "the runner is a new one"
    """
    reason = require_reason(reason)
    settings = read_settings(config)
    with _opened(settings) as (store, ledger):
        revocation = store.get(revocation_id, datetime.now(UTC).timestamp())
        _record(ledger, revocation, requested_by or who_runs_this(), reason, lifted=True)
        store.remove(revocation.id)
    _print_one(revocation, "lifted", output)


@app.command("revocations")
def list_revocations(output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """List what is revoked now, the oldest first; what was before is in the record.

    \b
    Example:
      holdfast identity revocations -o json
    """
    from holdfast.database import Database
    from holdfast.identity.store import RevocationStore

    settings = read_settings(config)
    with closing(Database.open(settings.database_url, create=False)) as database:
        found = [each for each in RevocationStore(database).all() if each.holds_at(datetime.now(UTC).timestamp())]
    if output is not Output.TABLE:
        print_value({"revocations": list(map(_describe, found))}, output)
        return
    print_table(COLUMNS, map(_cells, found))


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[RevocationStore, Ledger]]:
    """The store and the log; every other command that writes to the record is kept out meanwhile."""
    from holdfast.database import Database
    from holdfast.identity.store import RevocationStore

    with ExitStack() as stack:
        database = stack.enter_context(closing(Database.open(settings.database_url, create=False)))
        stack.enter_context(open_store(database).alone(settings.state_dir / LOCK_FILE))
        yield RevocationStore(database), open_log(settings, database, stack)


def _record(ledger: Ledger, revocation: Revocation, by: str, reason: str, *, lifted: bool) -> None:
    """Put on record what is about to count. Raises what keeps it from being durable."""
    from holdfast.audit.record import Entry, Kind, Record, Revoked, timestamp

    told = Revoked(
        id=revocation.id,
        issuer=revocation.issuer,
        scope=revocation.scope.value,
        value=revocation.value,
        until=timestamp(revocation.until) if revocation.until else "",
        reason=reason,
        requested_by=by,
        lifted=lifted,
    )
    (outcome,) = ledger.write([Entry(Record(kind=Kind.REVOKE, at=timestamp(datetime.now(UTC)), revoke=told))])
    if isinstance(outcome, HoldfastError):
        raise outcome


def _tell_unknown(settings: Settings, revocation: Revocation) -> None:
    """Say on standard error when nobody on record is meant: that may be as intended, or misspelt."""
    from holdfast.audit.store import AuditStore

    try:
        with open_reading(settings) as database:
            is_known = _has_called(AuditStore(database), revocation) or _was_given(database, revocation)
    except HoldfastError as fault:
        typer.echo(f"Whether it is spelt as in the record was not looked at. {fault}", err=True)
        return
    if not is_known:
        who = f"the {revocation.scope.value} {show_on_one_line(revocation.value)} of {revocation.issuer}"
        typer.echo(f"no call on record is by {who}; is it spelt as in the record?", err=True)


def _was_given(database: Database, revocation: Revocation) -> bool:
    """Whether a token that is named so is among the latest that we gave."""
    from holdfast.audit.store.admissions import list_admissions
    from holdfast.identity.denylist import Scope

    if revocation.scope is not Scope.TOKEN:
        return False
    given = (each.record.issue for each in list_admissions(database, limit=LOOKED_AT))
    return any(issue is not None and issue.id == revocation.value for issue in given)


def _has_called(store: AuditStore, revocation: Revocation) -> bool:
    """Whether one of the latest calls that may be by those who are named is of their issuer; true if none can tell."""
    from holdfast.audit.callers import LONGEST_CLAIM
    from holdfast.audit.store import Filters
    from holdfast.identity.denylist import NAMING, Scope

    if revocation.scope is Scope.USER:
        asked = [Filters(user=revocation.value)]
    elif len(revocation.value) > LONGEST_CLAIM:
        return True
    else:
        asked = [Filters(claims=((claim, revocation.value),)) for claim in NAMING[revocation.scope]]
    found = (row for filters in asked for row in store.list_calls(filters, limit=LOOKED_AT))
    return any(row.issuer == revocation.issuer for row in found)


def _one_scope(token_id: str, subject: str, user: str) -> tuple[Scope, str]:
    from holdfast.identity.denylist import Scope

    given = [
        (scope, value)
        for scope, value in ((Scope.TOKEN, token_id), (Scope.SUBJECT, subject), (Scope.USER, user))
        if value
    ]
    if len(given) != 1:
        raise ConfigurationError("expected one of --token-id, --subject and --user: whom to let in no more.")
    if not given[0][1].isprintable():
        raise ConfigurationError(f"{given[0][1]!r}: expected printable text, as the token has it.")
    return given[0]


def _which_issuer(settings: Settings, issuer: str) -> str:
    trusted = settings.identity.issuers
    if issuer in trusted:
        return issuer
    if issuer:
        raise ConfigurationError(f"--issuer: found {issuer!r}; expected one of {', '.join(trusted)}.")
    if len(trusted) > 1:
        raise ConfigurationError(f"--issuer: is missing; expected one of {', '.join(trusted)}.")
    return trusted[0]


def _describe(revocation: Revocation) -> dict[str, Any]:
    return {
        "id": revocation.id,
        "scope": revocation.scope.value,
        "value": revocation.value,
        "issuer": revocation.issuer,
        "reason": revocation.reason,
        "revokedBy": revocation.revoked_by,
        "revokedAt": revocation.revoked_at.isoformat(),
        "until": revocation.until.isoformat() if revocation.until else None,
    }


def _cells(revocation: Revocation) -> tuple[str, ...]:
    until = revocation.until.strftime("%Y-%m-%dT%H:%M:%SZ") if revocation.until else ""
    return (
        revocation.id,
        revocation.scope.value,
        revocation.value,
        revocation.issuer,
        until,
        revocation.revoked_by,
        revocation.reason,
    )


def _print_one(revocation: Revocation, done: str, output: Output) -> None:
    if output is not Output.TABLE:
        print_value(_describe(revocation), output)
        return
    typer.echo(f"{done}: {revocation.id} ({revocation.scope.value} {revocation.value} of {revocation.issuer})")

"""`holdfast audit erase`: one person's bodies, or one call's."""

from __future__ import annotations

from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.audit.maintenance import RequestedBy, describe_unattributed, open_eraser, print_unattributed
from holdfast.cli.options import ConfigFile, OutputFormat, parse_since, read_settings, require_consent, require_reason
from holdfast.cli.output import Output, print_value, show_count
from holdfast.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from holdfast.audit.retention import Wanted
    from holdfast.audit.store.retention import RetentionStore
    from holdfast.settings import Settings


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
    from holdfast.audit.maintenance import run_erasure

    wanted = _wanted(user, issuer, call, since, until)
    reason = require_reason(reason)
    settings = read_settings(config)
    with ExitStack() as stack:
        store, eraser = open_eraser(settings, requested_by, stack)
        if call:
            store.resolve_call(call)
        if not yes:
            _ask(store, wanted)
        with show_count("bodies") as advance:
            erased = run_erasure(store, eraser, wanted, reason, advance)
    number, size = erased.bodies.total(), erased.bytes.total()
    if user and not number and not erased.unattributed:
        _require_known(user, settings)
    if output is not Output.TABLE:
        unattributed = describe_unattributed(erased.unattributed)
        print_value({"bodies": number, "bytes": size, "unattributed": unattributed}, output)
        return
    typer.echo(f"erased: {number} bodies, {size} bytes")
    if yes:  # else they were told of before it was asked
        print_unattributed(erased.unattributed)


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


def _require_known(user: str, settings: Settings) -> None:
    """Where nothing was found, see that it is a user of whom there are calls, not one whose name was misspelt.

    Lists are asked only then: who changed all of the user's rows must not be believed. Raises NotFound.
    """
    from holdfast.audit.store import AuditStore, Filters
    from holdfast.database import Database

    with closing(Database.open_readonly(settings.database_url)) as database:
        if not AuditStore(database).list_calls(Filters(user=user), limit=1):
            raise NotFound(f"no call of the user {user} is in the record; nothing was erased")


def _ask(store: RetentionStore, wanted: Wanted) -> None:
    """Say what would go, and have a person agree."""
    from holdfast.audit.maintenance import plan_erasure

    planned = plan_erasure(store, wanted)
    bodies = planned.bodies.total()
    print_unattributed(planned.unattributed)
    if bodies:
        typer.echo(f"{bodies} bodies of {planned.bytes.total()} bytes are to be erased for good.", err=True)
        require_consent("Erase them?", "nothing was erased")

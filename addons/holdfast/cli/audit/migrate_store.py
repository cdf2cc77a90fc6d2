"""`holdfast audit migrate-store`: the record moved to another database."""

from __future__ import annotations

import re
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from urllib.parse import parse_qs, urlsplit

import typer

from holdfast.cli.audit.reading import open_payloads, own_root
from holdfast.cli.options import ConfigFile, read_settings
from holdfast.cli.output import counted, show_steps

if TYPE_CHECKING:
    from holdfast.audit.note import Verifier
    from holdfast.cli.output import Step
    from holdfast.database import Database
    from holdfast.settings import Settings


VARIABLE = "HOLDFAST_MIGRATE_TO"


def migrate_store(
    context: typer.Context,
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar=VARIABLE,
            help="The database to copy to: sqlite:///PATH, empty or not there yet, or postgresql://USER@HOST/NAME, "
            f"empty, made by createdb. One with a password belongs in {VARIABLE}, not on the command line.",
        ),
    ],
    config: ConfigFile = None,
) -> None:
    """Copy the whole record to another database, compare the copy with the original, and verify it.

    Stop the gateway and its approvals API first. Afterwards set `audit.database` to the new URL, start them again,
    and keep the old database until you have run `holdfast audit verify`. Payloads in an object store stay there. In
    Postgres make role and database first: createuser --pwprompt holdfast; createdb --owner=holdfast holdfast.

    \b
    Example:
      holdfast audit migrate-store --to postgresql://holdfast@db.internal/holdfast
    """
    from holdfast.audit.head import STOP_FIRST, find_heads
    from holdfast.database import Database

    source = context.get_parameter_source("to")
    _check_url(to, is_told_to_everybody=source is not None and source.name == "COMMANDLINE")
    settings = read_settings(config)
    root = own_root(settings)
    with ExitStack() as stack:
        for head in find_heads(settings.state_dir):
            stack.callback(head.close)
            head.lock(STOP_FIRST)
            head.load()  # a damaged one is refused, as the gateway refuses it
        original = stack.enter_context(closing(Database.open(settings.database_url, create=False)))
        copy = stack.enter_context(closing(Database.open(to)))
        step = stack.enter_context(show_steps())
        total = _copy(original, copy, step)
        _verify(copy, settings, root, step)
    typer.echo(f"copied and verified: {total} rows. Now set audit.database and start again.", err=True)


def _check_url(to: str, *, is_told_to_everybody: bool) -> None:
    """Refuse what is no URL before anything repeats it, and a password where every process list shows it."""
    from holdfast.errors import ConfigurationError

    if not re.match(r"[a-z]+(\+[a-z]+)?://", to):
        raise ConfigurationError("--to: expected sqlite:///PATH or postgresql://USER@HOST/NAME.")
    if "password" in parse_qs(urlsplit(to).query):
        raise ConfigurationError("--to: a password belongs before the host: postgresql://USER:PASSWORD@HOST/NAME.")
    if is_told_to_everybody and urlsplit(to).password:
        raise ConfigurationError(
            f"--to: everybody on this machine can see a password on the command line; change it, and set {VARIABLE} "
            "to the URL instead."
        )


def _copy(original: Database, copy: Database, step: Step) -> int:
    import holdfast.approval.store
    import holdfast.identity.store  # noqa: F401  their tables are copied too
    from holdfast.audit.store.copying import copy_record, count_rows, find_difference
    from holdfast.errors import HoldfastError

    total = sum(count_rows(original).values())
    advance = step("copying", total)
    copy_record(original, copy, lambda _, rows: advance(rows))
    step("comparing", None)
    difference = find_difference(original, copy)
    if difference:
        raise HoldfastError(f"the copy differs from the original: {difference}; do not use it")
    return total


def _verify(copy: Database, settings: Settings, root: Verifier, step: Step) -> None:
    from holdfast.audit.record import timestamp
    from holdfast.audit.store.export import export_lines
    from holdfast.audit.verify import Anchoring, Class, verify_lines
    from holdfast.errors import HoldfastError

    with open_payloads(settings) as pieces:
        lines = export_lines(copy, settings.cluster, timestamp(datetime.now(UTC)), pieces=pieces)
        report = verify_lines(counted(lines, step("verifying", None)), root, Anchoring(()))
    altered = [finding for finding in report.findings if finding.code.grade is Class.ALTERED]
    if altered:
        first = altered[0]
        place = f" in {first.log}" if first.log else ""
        raise HoldfastError(
            f"the copy does not verify: {first.code.name}{place}: {first.what}, and {len(altered) - 1} more; its rows "
            "are those of the original, so see what `holdfast audit verify` says of that, and do not use the copy"
        )

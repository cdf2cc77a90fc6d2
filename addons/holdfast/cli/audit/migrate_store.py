"""`holdfast audit migrate-store`: the record moved to another database."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import ConfigFile, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.audit.head import HeadFile
    from holdfast.settings import Settings


def migrate_store(
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="HOLDFAST_MIGRATE_TO",
            help="The database to copy to, empty or not there yet: sqlite:///PATH or postgresql://USER@HOST/NAME. One "
            "with a password belongs in the variable, not on the command line.",
        ),
    ],
    config: ConfigFile = None,
) -> None:
    """Copy the whole record to another database, and compare the copy with the original.

    Stop the gateway and its approvals API first. Afterwards set `audit.database` to the new URL, start them again,
    and keep the old database until you have run `holdfast audit verify`. Payloads in an object store stay there.

    \b
    Example:
      holdfast audit migrate-store --to postgresql://holdfast@db.internal/holdfast
    """
    from holdfast.audit.store.copying import copy_record, count_rows, find_difference
    from holdfast.database import Database
    from holdfast.errors import HoldfastError

    settings = read_settings(config)
    with ExitStack() as stack:
        for head in _heads(settings):
            stack.callback(head.close)
            head.load()  # takes the lock that a running gateway has
        source = stack.enter_context(closing(Database.open(settings.database_url, create=False)))
        target = stack.enter_context(closing(Database.open(to)))
        total = sum(count_rows(source).values())
        with _progress(total) as advance:
            copy_record(source, target, advance)
        difference = find_difference(source, target)
        if difference:
            raise HoldfastError(f"the copy differs from the original: {difference}; do not use it")
    typer.echo(f"copied: {total} rows; every log's tree is the same. Now set audit.database and start again.", err=True)


def _heads(settings: Settings) -> Iterator[HeadFile]:
    from holdfast.audit.head import HeadFile
    from holdfast.audit.keys import CONSOLE

    for role in ("", CONSOLE):
        file = settings.state_dir / f"audit{role}.head"
        if file.exists():
            yield HeadFile(file)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda table, rows: bar.update(task, advance=rows, description=table)

"""How commands print: tables for people, JSON and YAML for programs.

Names, paths, reasons and bodies come from callers. Before they reach a person's terminal, every character that
could move the cursor, change colours or reorder the line (C0 and C1 controls, bidirectional overrides) is shown
as its escape; JSON and YAML are written in ASCII for the same reason. CSV ends in spreadsheets, which take a cell for a
formula by its first character (https://owasp.org/www-community/attacks/CSV_Injection): such a one gets an apostrophe.
"""

from __future__ import annotations

import csv
import enum
import json
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import Console

    type Advance = Callable[[int], None]
    type Step = Callable[[str, int | None], Advance]

ITEMS_TOLD = 100
END_OF_TIME = 253_402_300_799
"""The last second of the year 9999, beyond which datetime knows none."""
_UNBOUNDED_WIDTH = 10_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Output(enum.StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class ListOutput(enum.StrEnum):
    """What `-o` takes where rows are listed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"


def show_safely(text: str) -> str:
    """Return `text` with everything a terminal would obey, new lines and tabs aside, shown as its escape."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else _escape(character) for character in text
    )


def show_on_one_line(text: str) -> str:
    """As `show_safely`, with new lines and tabs as escapes too."""
    return "".join(character if character.isprintable() else _escape(character) for character in text)


def show_second(seconds: float) -> str:
    """A moment, in seconds since the epoch, as RFC 3339 has it; `no date` where the calendar has none for it."""
    if not 0 <= seconds <= END_OF_TIME:
        return "no date"
    return f"{datetime.fromtimestamp(seconds, UTC):%FT%TZ}"


def print_value(value: Any, output: Output | ListOutput) -> None:
    """Print a value of JSON's types as JSON or YAML, in ASCII."""
    typer.echo(render_yaml(value) if output == Output.YAML else json.dumps(value, indent=2))


def render_yaml(value: Any) -> str:
    """Return `value` as a YAML document, without the new line at its end."""
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.allow_unicode = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # its annotation knows only None
    stream = StringIO()
    writer.dump(value, stream)
    return stream.getvalue().rstrip("\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their columns; long cells wrap on a terminal and stay whole in a pipe."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(show_on_one_line(cell)) for cell in row))
    open_console().print(table)


def print_line(cells: Sequence[str], widths: Sequence[int]) -> None:
    """Print one row of a table whose further rows are not there yet; longer cells push the next ones along."""
    padded = (show_on_one_line(cell).ljust(width) for cell, width in zip(cells, widths, strict=True))
    typer.echo("  ".join(padded).rstrip())


def print_csv(rows: Iterable[Sequence[object]]) -> None:
    """Print rows as CSV (RFC 4180), each on one line, without what a terminal would obey or a spreadsheet compute."""
    stream = StringIO()
    csv.writer(stream, lineterminator="\n").writerows([_defuse(cell) for cell in row] for row in rows)
    typer.echo(stream.getvalue(), nl=False)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line, the ones without a value left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            table.add_row(Text(show_on_one_line(name)), Text(show_safely(value)))
    open_console().print(table)


@contextmanager
def show_steps() -> Iterator[Step]:
    """Show on standard error, where that is a terminal, how far each step of a command is: step(NAME, TOTAL)(MORE)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:

        def step(name: str, total: int | None) -> Advance:
            task = progress.add_task(name, total=total)
            return lambda number: progress.update(task, advance=number)

        yield step


@contextmanager
def show_count(what: str) -> Iterator[Advance]:
    """Show how many of something are done, where nobody knows how many there will be."""
    with show_steps() as step:
        yield step(what, None)


def counted[T](items: Iterable[T], advance: Advance) -> Iterator[T]:
    """Yield them, and tell of each hundred."""
    for number, item in enumerate(items, 1):
        if not number % ITEMS_TOLD:
            advance(ITEMS_TOLD)
        yield item


def open_console() -> Console:
    """A console on standard output: coloured and as wide as the terminal, or plain and as wide as need be."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, no_color=True, width=_UNBOUNDED_WIDTH)


def _defuse(cell: object) -> str:
    text = "" if cell is None else str(cell).lower() if isinstance(cell, bool) else str(cell)
    return ("'" if text.startswith(_FORMULA) else "") + show_on_one_line(text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""What several commands take: the settings file, the way of output, times."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.output import ListOutput, Output
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.settings import Settings

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGE = re.compile(r"([0-9]{1,6})([smhd])")
_DAYS_AGO = {"today": 0, "yesterday": 1}

WRITE_ONE = "write one: README.md has one to begin with"

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="HOLDFAST_CONFIG",
        help="Settings file; ./holdfast.yaml when absent.",
    ),
]
OutputFormat = Annotated[Output, typer.Option("--output", "-o", help="How to print it.")]
ListFormat = Annotated[
    ListOutput,
    typer.Option(
        "--output",
        "-o",
        help="How to print it; in csv, a cell that a spreadsheet would compute (= + - @) begins with an apostrophe.",
    ),
]


def read_settings(config: Path | None, instead: str = WRITE_ONE) -> Settings:
    """Read the settings file. Raises ConfigurationError; `instead` says what a command needs where there is none."""
    from holdfast.settings import find_settings, load_settings

    file = find_settings(config)
    if not file.exists():
        raise ConfigurationError(f"{file}: there is no such settings file; name one with --config, or {instead}.")
    return load_settings(config)


def require_reason(reason: str) -> str:
    """Return the value of a --reason that goes on record. Raises ConfigurationError when no record can tell it."""
    if not reason.strip():
        raise ConfigurationError("--reason: expected why; it goes into the record.")
    if any("\ud800" <= character <= "\udfff" for character in reason):  # what the shell gave was no UTF-8
        raise ConfigurationError("--reason: expected UTF-8 text; it goes into the record.")
    return reason.strip()


def require_consent(question: str, undone: str) -> None:
    """Ask a person on the terminal; where nobody agrees, say what was left undone and end with 1."""
    can_ask = sys.stdin.isatty()
    if can_ask and typer.confirm(question, err=True):
        return
    typer.echo(undone if can_ask else f"{undone}; give --yes where nobody can be asked", err=True)
    raise typer.Exit(1)


def parse_address(listen: str) -> tuple[str, int]:
    """Read HOST:PORT, the value of --listen. Raises ConfigurationError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"--listen: found {listen!r}; expected HOST:PORT, as 127.0.0.1:8445.")
    return host.strip("[]"), int(port)


def parse_age(text: str, option: str) -> timedelta:
    """Read a length of time, the value of `option`: `90s`, `10m`, `2h`, `7d`. Raises ConfigurationError otherwise."""
    age = _AGE.fullmatch(text)
    if age is None:
        raise ConfigurationError(f"{option}: found {text!r}; expected a length of time as 90s, 10m, 2h or 7d.")
    return timedelta(**{_UNITS[age[2]]: int(age[1])})


def parse_since(text: str, now: datetime, option: str = "--since") -> datetime:
    """Read a moment, the value of `option`: an age, a day's name, or an RFC 3339 time with its offset.

    An age (`90s`, `10m`, `2h`, `7d`) is counted back from `now`; `today` and `yesterday` mean where that day began
    in this machine's time zone. Raises ConfigurationError for anything else.
    """
    if _AGE.fullmatch(text):
        return now - parse_age(text, option)
    if names_day(text):
        day = now.astimezone().date() - timedelta(days=_DAYS_AGO[text])
        return datetime.combine(day, time.min).astimezone()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError(
            f"{option}: found {text!r}; expected an age as 10m, 2h or 7d, today, yesterday, or a time as "
            f"{now.astimezone(UTC):%FT%TZ}."
        )
    return moment


def names_day(text: str) -> bool:
    """Whether it is this machine's time zone that says which moment is meant."""
    return text in _DAYS_AGO

"""`holdfast audit export`: calls as a mitmproxy flow file, or all of the record as a file that can be verified."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from holdfast.cli.audit.filters import FilterOptions, takes_filters
from holdfast.cli.audit.reading import open_lines, open_store
from holdfast.cli.options import ConfigFile, read_settings
from holdfast.cli.output import counted, show_count, show_steps
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.export import Line
    from holdfast.audit.store import CallStory
    from holdfast.cli.output import Step


@takes_filters
def export(
    *,
    flows: Annotated[Path | None, typer.Option(metavar="FILE", help="The mitmproxy flow file to write (0600).")] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file to write that proves the whole record (0600); - is standard output."
        ),
    ] = None,
    payloads: Annotated[bool, typer.Option(help="With --ledger: write the bodies too.")] = True,
    chosen: FilterOptions,
    config: ConfigFile = None,
) -> None:
    """Write calls as a mitmproxy flow file (--flows), or all of the record as a file that can be verified (--ledger).

    A flow file holds the calls that the filters choose, the oldest first, masked as recorded, with the story as
    comment. What proves the record is all of it, so there the filters do not apply.

    \b
    Example:
      holdfast audit export --flows agent.flows --user agent --since 1h
      mitmweb --rfile agent.flows --no-server
      holdfast audit export --ledger record.export
    """
    from holdfast.audit.store import ANY_CALL

    filters = chosen.filters()
    settings = read_settings(config)
    if (flows is None) == (ledger is None):
        raise ConfigurationError("expected --flows FILE or --ledger FILE" + (", not both." if flows else "."))
    if ledger is not None:
        if filters != ANY_CALL:
            raise ConfigurationError("--ledger writes the whole record: filters belong to --flows.")
        with open_lines(settings, payloads=payloads) as lines, show_steps() as step:
            _write_ledger(ledger, tell_steps(lines, step))
        typer.echo(f"written: {ledger}", err=True)
        return
    assert flows is not None  # noqa: S101  one of them is there
    with open_store(settings) as store, show_count("calls") as advance:
        written = _write_flows(flows, settings.cluster, counted(store.iter_calls(filters), advance))
    typer.echo(f"written: {written} calls to {flows}", err=True)


def tell_steps(lines: Iterator[Line], step: Step) -> Iterator[Line]:
    """Yield the lines of an export, and tell of them; before there is a first one, all of a SQLite file is checked."""
    advance = step("checking tables", 1)
    first = next(lines)
    advance(1)
    yield first
    yield from counted(lines, step("rows", None))


def _write_ledger(file: Path, lines: Iterable[Line]) -> None:
    """Write an export to a file, or to standard output (`-`)."""
    from holdfast.audit.export import write_export

    if str(file) == "-":
        write_export(lines, sys.stdout.buffer)
        return
    with _written_whole(file) as stream:
        write_export(lines, stream)


def _write_flows(file: Path, cluster: str, stories: Iterable[CallStory]) -> int:
    """Write a flow file; return how many calls are in it."""
    from holdfast.hooks.flowfile import FlowFile
    from holdfast.replay.story import is_refused, request_body, response_body, summarize

    written = 0
    with _written_whole(file) as stream:
        flows = FlowFile(stream, cluster)
        for story in stories:
            flows.add(
                story,
                comment=summarize(story),
                is_refused=is_refused(story),
                request=request_body(story).content,
                response=response_body(story).content,
            )
            written += 1
    return written


@contextmanager
def _written_whole(file: Path) -> Iterator[IO[bytes]]:
    """A file (0600) that takes its name once all of it is on the disk; what had that name stays until then.

    Raises ConfigurationError.
    """
    try:
        written = tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete_on_close=False)  # noqa: SIM115
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be written: {error.strerror}.") from error
    with written as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        Path(stream.name).replace(file)

"""`holdfast policy`: policies, tried before they are put in force."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_table, print_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

app = typer.Typer(help="Try policies before they are put in force.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Line:
    """How one case of one file came out; a file without cases has one line without a case."""

    file: str
    case: str
    result: str
    detail: str


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILES]...", help="Policy files; the configured ones when absent.")
    ] = None,
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """Load policies, compile their masks, and run the cases beside them (NAME.cases.yaml for NAME.yaml).

    The cases of a file are judged by that file alone; that all the files fit together is checked too. Exits with
    1 when a case fails, with 2 when a file cannot be enforced as written.

    \b
    Example:
      holdfast policy check policies/*.yaml
    """
    chosen = _leave_out_cases(files) if files else read_settings(config).policies
    _compile_together(chosen)
    lines = [line for file in chosen for line in _check_file(file)]
    if output is Output.TABLE:
        print_table(("FILE", "CASE", "RESULT", "DETAIL"), ((x.file, x.case, x.result, x.detail) for x in lines))
        typer.echo(_describe_total(lines))
    else:
        print_value([{"file": x.file, "case": x.case, "result": x.result, "detail": x.detail} for x in lines], output)
    if any(line.result == "fail" for line in lines):
        raise typer.Exit(1)


def _describe_total(lines: Sequence[Line]) -> str:
    results = [line.result for line in lines if line.case]
    files = len({line.file for line in lines})
    return f"{files} files, {len(results)} cases: {results.count('pass')} pass, {results.count('fail')} fail"


def _leave_out_cases(files: Iterable[Path]) -> list[Path]:
    """Let `policies/*.yaml` mean the policies, though the shell hands over their cases too."""
    return [file for file in files if not file.name.endswith(".cases.yaml")]


def _compile_together(files: Sequence[Path]) -> None:
    """Compile all that must be compiled before the first call. Raises ConfigurationError."""
    from holdfast.masking.plan import compile_plan
    from holdfast.policy.authorizer import load_policies

    compile_plan(tuple(compiled.mask for compiled in load_policies(files).masks))


def _check_file(file: Path) -> list[Line]:
    from holdfast.policy.authorizer import load_policies
    from holdfast.policy.cases import run_cases

    cases = file.with_name(f"{file.stem}.cases.yaml")
    if not cases.exists():
        return [Line(str(file), "", "ok", "loads; no cases beside it")]
    results = run_cases(load_policies([file]), cases)
    return [Line(str(file), x.name, "pass" if x.passed else "fail", x.failure) for x in results]

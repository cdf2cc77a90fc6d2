"""The tree of commands, and how a failure becomes one sentence and an exit code."""

from __future__ import annotations

import sys
import traceback
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from holdfast.cli import approvals, audit, dev_issuer, doctor, identity, kubeconfig, login, policy, serve, witness
from holdfast.cli.output import show_safely
from holdfast.errors import ConfigurationError, HoldfastError

INTERRUPTED = 130
"""What a shell reports for a command that was ended by Ctrl-C (128 + SIGINT)."""


class Commands(TyperGroup):
    """The root group: nothing that a command raises ends in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn what it raises into a sentence on standard error and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except ConfigurationError as error:
            _fail(str(error), 2)
        except HoldfastError as error:
            _fail(str(error), 1)
        except BrokenPipeError:
            raise  # `holdfast ... | head`: typer ends quietly
        except OSError as error:
            _fail(f"{error.filename or 'the system'}: {error.strerror or error}.", 2)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"holdfast: {show_safely(sentence)}", err=True)
    raise typer.Exit(code)


app = typer.Typer(
    name="holdfast",
    cls=Commands,
    help="""Holdfast: an identity-aware gateway for the Kubernetes API.

    It authenticates callers, asks a policy, holds risky calls until a person decides, masks what must not be
    seen, and records everything.

    \b
    Start here:
      holdfast doctor                   see whether everything is in place
      holdfast serve                    start the gateway
      holdfast kubeconfig --help        let a caller in
      holdfast approvals list --watch   see what waits for a decision
      holdfast audit list --since 10m   see what happened
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {version('holdfast')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command("serve")(serve.serve)
app.command("console")(serve.console)
app.command("doctor")(doctor.doctor)
app.command("kubeconfig")(kubeconfig.kubeconfig)
app.command("login")(login.login)
app.command("get-token")(login.get_token)
app.command("logout")(login.logout)
app.add_typer(approvals.app, name="approvals")
app.add_typer(audit.app, name="audit")
app.add_typer(identity.app, name="identity")
app.add_typer(policy.app, name="policy")
app.add_typer(witness.app, name="witness")
app.add_typer(dev_issuer.app, name="dev-issuer")


def main() -> None:
    """Run the command line and exit; what nobody foresaw becomes a sentence too (`python -X dev` shows it whole)."""
    _forbid_core_dumps()
    try:
        app()
    except Exception as fault:
        if sys.flags.dev_mode:
            raise
        # Without the fault's own message, which may quote a body or a token.
        where = traceback.extract_tb(fault.__traceback__)[-1]
        place = f"{where.name}, {where.filename}:{where.lineno}"
        typer.echo(f"holdfast: failed with {type(fault).__name__} in {place}: a fault of Holdfast itself.", err=True)
        sys.exit(1)


def _forbid_core_dumps() -> None:
    """Whatever ends a command leaves no file with the tokens and keys that it had in memory."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

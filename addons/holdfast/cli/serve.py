"""`holdfast serve`, the gateway, and `holdfast console`, the approvals API beside it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import ConfigFile, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.settings import Settings


def serve(
    config: ConfigFile = None,
    no_console: Annotated[
        bool, typer.Option("--no-console", help="Do not start the approvals API; run `holdfast console` elsewhere.")
    ] = False,
) -> None:
    """Run the gateway until it is interrupted; then calls under way get time to end.

    The approvals API runs beside it as a child process, unless `approvals.embedded` is false or --no-console is
    given.

    \b
    Example:
      holdfast serve --config holdfast.yaml
    """
    settings = read_settings(config)
    _name_for_children(config)
    from holdfast.hooks.serve import run

    raise typer.Exit(run(_without_console(settings) if no_console else settings))


def console(
    config: ConfigFile = None,
    exit_with_parent: Annotated[
        bool, typer.Option("--exit-with-parent", help="End when standard input ends, as it does when the parent dies.")
    ] = False,
) -> None:
    """Run the approvals API in a process of its own; it prints `ready URL` once it takes requests.

    It shares the gateway's settings file, audit database and certificate, and needs no access to the cluster.

    \b
    Example:
      holdfast console --config holdfast.yaml
    """
    settings = read_settings(config)
    from holdfast.console.server import run
    from holdfast.hooks.gateway import listener_certificates

    certificates = listener_certificates(settings)
    run(
        settings,
        certificate=certificates.certificate,
        private_key=certificates.private_key,
        ready=lambda url: typer.echo(f"ready {url}"),
        exit_with_parent=exit_with_parent,
    )


def _name_for_children(config: Path | None) -> None:
    """Let the child processes find the settings file that this one was given."""
    if config is not None:
        os.environ["HOLDFAST_CONFIG"] = str(config.absolute())


def _without_console(settings: Settings) -> Settings:
    approvals = settings.approvals.model_copy(update={"embedded": False})
    return settings.model_copy(update={"approvals": approvals})

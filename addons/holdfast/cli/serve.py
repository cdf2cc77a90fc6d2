"""`holdfast serve`, the gateway, and `holdfast console`, the approvals API beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.options import ConfigFile, read_settings


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
    from holdfast.hooks.serve import run

    raise typer.Exit(run(settings, config_file=config, console=False if no_console else None))


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
    from holdfast.hooks.listener import listener_certificates

    certificates = listener_certificates(settings)
    run(
        settings,
        certificate=certificates.certificate,
        private_key=certificates.private_key,
        ready=lambda url: typer.echo(f"ready {url}"),
        exit_with_parent=exit_with_parent,
    )

"""`holdfast doctor`: everything the gateway needs, tried one by one, with what to do about what is missing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_table, print_value
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.cli.checks import Check


def doctor(output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Try everything the gateway needs: settings, certificates, policies, the record's store and keys, payloads and
    anchors, issuers, upstream, approvals.

    It changes nothing and works beside a running gateway. Exits with 1 when something failed.

    \b
    Example:
      holdfast doctor --config holdfast.yaml
      holdfast doctor -o json
    """
    checks = asyncio.run(_check_all(config))
    if output is Output.TABLE:
        print_table(("CHECK", "STATE", "FOUND", "NEXT"), ((x.name, x.state, x.found, x.advice) for x in checks))
    else:
        print_value([asdict(check) for check in checks], output)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


async def _check_all(config: Path | None) -> list[Check]:
    from holdfast.cli import checks

    try:
        settings = read_settings(config)
    except ConfigurationError as error:
        return [checks.fail("configuration", str(error), "correct the settings file, or name another with --config")]
    return [
        checks.ok("configuration", f"cluster {settings.cluster}, {len(settings.policies)} policy files"),
        checks.check_certificates(settings),
        checks.check_policies(settings),
        checks.check_store(settings),
        *checks.check_reading(settings),
        checks.check_keys(settings),
        checks.check_payloads(settings),
        *checks.check_anchors(settings),
        *[await checks.check_issuer(trusted) for trusted in settings.identity.jwt],
        await checks.check_upstream(settings),
        await checks.check_approvals(settings),
    ]

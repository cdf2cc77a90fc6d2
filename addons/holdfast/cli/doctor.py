"""`holdfast doctor`: everything the gateway needs, tried one by one, with what to do about what is missing."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_table, print_value, render_yaml
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.cli.checks import Check
    from holdfast.settings import Settings

ROLE_NOTE = """\
# For upstream.impersonate. Whoever may impersonate any user and any group can do everything in the cluster: keep the
# credential as you would an administrator's. Where you know the names, narrow the rules with resourceNames.
"""
WITHOUT_IMPERSONATION = """\
# upstream.impersonate is not set: the API server takes every call as the gateway's own. Its credential needs the
# rights that its callers are to have together, such as the ClusterRole edit; policies narrow them for each caller.
# With upstream.impersonate it needs only the right to impersonate, and each caller has the rights of their own.\
"""


Rbac = Annotated[bool, typer.Option("--rbac", help="Print the role that the gateway's credential needs, and stop.")]
Account = Annotated[
    str, typer.Option("--service-account", metavar="NAMESPACE:NAME", help="With --rbac: whose credential it is.")
]


def doctor(
    output: OutputFormat = Output.TABLE,
    rbac: Rbac = False,
    service_account: Account = "holdfast:gateway",
    config: ConfigFile = None,
) -> None:
    """Try everything the gateway needs: settings, certificates, policies, the record's store and keys, payloads and
    anchors, issuers and SAML providers, upstream, approvals.

    It changes nothing and works beside a running gateway. Exits with 1 when something failed. With --rbac it asks
    nobody, and prints what to give to kubectl apply instead.

    \b
    Example:
      holdfast doctor --config holdfast.yaml
      holdfast doctor -o json
      holdfast doctor --rbac | kubectl apply -f -
    """
    if rbac:
        typer.echo(_write_role(read_settings(config), service_account))
        return
    checks = asyncio.run(_check_all(config))
    if output is Output.TABLE:
        print_table(("CHECK", "STATE", "FOUND", "NEXT"), ((x.name, x.state, x.found, x.advice) for x in checks))
    else:
        print_value([asdict(check) for check in checks], output)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


def _write_role(settings: Settings, service_account: str) -> str:
    from holdfast.credential.rights import impersonation_rights, role_manifests

    namespace, colon, name = service_account.partition(":")
    if not (namespace and colon and name) or ":" in name:
        raise ConfigurationError(f"--service-account: found {service_account!r}; expected NAMESPACE:NAME.")
    if not settings.upstream.impersonate:
        return WITHOUT_IMPERSONATION
    manifests = role_manifests(impersonation_rights(settings.identity), namespace, name)
    return ROLE_NOTE + "\n---\n".join(render_yaml(manifest) for manifest in manifests)


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
        *[checks.check_saml_provider(provider, datetime.now(UTC)) for provider in settings.identity.saml],
        *checks.check_tokens(settings),
        await checks.check_upstream(settings),
        *await checks.check_impersonation(settings),
        await checks.check_approvals(settings),
    ]

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


GATEWAY_ACCOUNT = "holdfast:gateway"

Rbac = Annotated[bool, typer.Option("--rbac", help="Print the role that the gateway's credential needs, and stop.")]
Account = Annotated[
    str,
    typer.Option(
        "--service-account",
        metavar="NAMESPACE:NAME",
        help=f"With --rbac: whose credential it is; {GATEWAY_ACCOUNT} when absent.",
    ),
]


def doctor(
    output: OutputFormat = Output.TABLE,
    rbac: Rbac = False,
    service_account: Account = "",
    config: ConfigFile = None,
) -> None:
    """Try everything the gateway needs: settings, certificates, policies, the record's store and keys, payloads and
    anchors, issuers and SAML providers, upstream, approvals.

    It changes nothing and works beside a running gateway. Exits with 1 when something failed, with 2 when the settings
    cannot be read. With --rbac it asks nobody, and prints what to give to kubectl apply instead, in YAML.

    \b
    Example:
      holdfast doctor --config holdfast.yaml
      holdfast doctor -o json
      holdfast doctor --rbac | kubectl apply -f -
    """
    if rbac:
        if output is Output.JSON:
            raise ConfigurationError("--rbac: prints YAML for `kubectl apply -f -`; leave `-o json` out.")
        typer.echo(_write_role(read_settings(config), service_account or GATEWAY_ACCOUNT))
        return
    if service_account:
        raise ConfigurationError("--service-account: goes with --rbac; the credential that is tried is upstream's.")
    from holdfast.cli.checks import Check

    settings = _load(config)
    checks = [settings] if isinstance(settings, Check) else asyncio.run(_check_all(settings))
    if output is Output.TABLE:
        print_table(("CHECK", "STATE", "FOUND", "NEXT"), ((x.name, x.state, x.found, x.advice) for x in checks))
    else:
        print_value([asdict(check) for check in checks], output)
    if isinstance(settings, Check):
        raise typer.Exit(2)
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)


def _load(config: Path | None) -> Settings | Check:
    from holdfast.cli.checks import fail

    try:
        return read_settings(config)
    except ConfigurationError as error:
        return fail("configuration", str(error), "correct the settings file, or name another with --config")


def _write_role(settings: Settings, service_account: str) -> str:
    from holdfast.credential.rights import impersonation_rights, role_manifests

    namespace, colon, name = service_account.partition(":")
    if not (namespace and colon and name) or ":" in name:
        raise ConfigurationError(f"--service-account: found {service_account!r}; expected NAMESPACE:NAME.")
    if not settings.upstream.impersonate:
        return WITHOUT_IMPERSONATION
    manifests = role_manifests(impersonation_rights(settings.identity), namespace, name)
    return ROLE_NOTE + "\n---\n".join(render_yaml(manifest) for manifest in manifests)


async def _check_all(settings: Settings) -> list[Check]:
    from holdfast.cli import checks

    return [
        checks.ok("configuration", f"cluster {settings.cluster}, {len(settings.policies)} policy files"),
        checks.check_certificates(settings),
        checks.check_policies(settings),
        checks.check_store(settings),
        *checks.check_reading(settings),
        checks.check_keys(settings),
        checks.check_payloads(settings),
        *checks.check_anchors(settings),
        *[await checks.check_issuer(trusted, settings.identity) for trusted in settings.identity.jwt],
        *[checks.check_saml_provider(provider, datetime.now(UTC)) for provider in settings.identity.saml],
        *checks.check_tokens(settings),
        *await checks.check_token_endpoint(settings),
        checks.check_permissions(settings),
        await checks.check_upstream(settings),
        *await checks.check_impersonation(settings),
        await checks.check_approvals(settings),
    ]

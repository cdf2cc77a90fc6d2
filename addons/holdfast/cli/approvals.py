"""`holdfast approvals`: see what waits for a person, and decide it."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_pairs, print_table, print_value, show_on_one_line, show_safely
from holdfast.errors import ConfigurationError
from holdfast.login.cached import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, is_bearer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast.cli.approvals_client import ApprovalsClient
    from holdfast.settings import Settings

WATCH_SECONDS = 1.0
COLUMNS = ("ID", "STATE", "USER", "VERB", "OBJECT", "NAMESPACE", "RULE", "AGE", "DECIDED BY")
WATCH_WIDTHS = (12, 9, 20, 7, 32, 16, 20, 4, 20)
WITHOUT_SETTINGS = (
    "name the approvals API with --server and --certificate-authority, which is the gateway's state/listener/ca.crt "
    "(its listen.certificateAuthority where it has one)"
)

app = typer.Typer(help="See what waits for a person, and decide it.", no_args_is_help=True)

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL", envvar="HOLDFAST_APPROVALS_SERVER", help="The approvals API; from the settings file when absent."
    ),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--certificate-authority",
        metavar="FILE",
        envvar="HOLDFAST_CA",
        help="CA of the approvals API, PEM; from the settings file when that names the server, else the system's.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar=TOKEN_FILE_VARIABLE,
        help=f"Your token, of an issuer that the gateway trusts; or set ${TOKEN_VARIABLE} to the token.",
    ),
]
HoldName = Annotated[str, typer.Argument(metavar="ID", help="The hold, or the beginning of its ID.")]


@app.command("list")
def list_holds(
    everything: Annotated[bool, typer.Option("--all", help="Decided and ended holds too.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on printing holds as they come and change.")] = False,
    output: OutputFormat = Output.TABLE,
    server: Server = None,
    certificate_authority: Authority = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
) -> None:
    """List the holds that you may decide, and your own, the newest first.

    With --watch and -o json or yaml, each hold is one document, printed again whenever its state changes.

    \b
    Example:
      holdfast approvals list --watch --token-file alice.token
    """
    states = () if everything else ("pending",)
    with _open_client(server, certificate_authority, token_file, config) as client:
        if watch:
            _watch(client, output, everything)
        else:
            _print_list(client.list(states), output)


@app.command()
def show(
    hold: HoldName,
    output: OutputFormat = Output.TABLE,
    server: Server = None,
    certificate_authority: Authority = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
) -> None:
    """Show one hold: who asks for what, with which (masked) body, by which rule it waits, who may decide.

    \b
    Example:
      holdfast approvals show h-4k7q2m9xza
    """
    with _open_client(server, certificate_authority, token_file, config) as client:
        found = client.get(hold)
    if output is Output.TABLE:
        _print_hold(found)
    else:
        print_value(found, output)


@app.command()
def approve(
    hold: HoldName,
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    server: Server = None,
    certificate_authority: Authority = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
) -> None:
    """Let a held call go on. Nobody approves their own.

    \b
    Example:
      holdfast approvals approve h-4k7q --reason "asked in the channel" --token-file alice.token
    """
    with _open_client(server, certificate_authority, token_file, config) as client:
        _confirm(client.decide(hold, approve=True, reason=reason))


@app.command()
def deny(
    hold: HoldName,
    reason: Annotated[str, typer.Option(help="Why; kept in the record, and printed to the caller by kubectl.")],
    server: Server = None,
    certificate_authority: Authority = None,
    token_file: TokenFile = None,
    config: ConfigFile = None,
) -> None:
    """Refuse a held call; the caller reads the reason.

    \b
    Example:
      holdfast approvals deny h-4k7q --reason "not during the freeze" --token-file alice.token
    """
    with _open_client(server, certificate_authority, token_file, config) as client:
        _confirm(client.decide(hold, approve=False, reason=reason))


@contextmanager
def _open_client(
    server: str | None, authority: Path | None, token_file: Path | None, config: Path | None
) -> Iterator[ApprovalsClient]:
    from holdfast.cli.approvals_client import ApprovalsClient

    read_token = _token_reader(token_file)
    url, authority_pem = _choose_server(server, config)
    client = ApprovalsClient(url, _read_authority(authority) if authority else authority_pem, read_token)
    try:
        yield client
    finally:
        client.close()


def default_server(settings: Settings) -> str:
    """The approvals API's URL as the settings tell it. Raises ConfigurationError when they do not."""
    approvals = settings.approvals
    if approvals.url is not None:
        return approvals.url
    if approvals.port == 0:
        raise ConfigurationError("approvals.port is 0, so the port is not known here; give --server or approvals.url.")
    return f"https://{f'[{approvals.host}]' if ':' in approvals.host else approvals.host}:{approvals.port}"


def _token_reader(token_file: Path | None) -> Callable[[], str]:
    """Reads the token anew for each call, since files rotate."""
    from holdfast.credential.sources import read_token

    if token_file is not None:
        return partial(read_token, token_file)
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ConfigurationError(
            f"no token: give --token-file FILE, or set ${TOKEN_FILE_VARIABLE} or ${TOKEN_VARIABLE}."
        )
    if not is_bearer(token):
        raise ConfigurationError(f"${TOKEN_VARIABLE}: expected one bearer token on one line.")
    return lambda: token


def _choose_server(server: str | None, config: Path | None) -> tuple[str, str | None]:
    """The URL to call and the CA to trust, PEM, unless another is given; None means the system's."""
    if server is not None:
        return server, None
    settings = read_settings(config, WITHOUT_SETTINGS)
    from holdfast.hooks.listener import listener_certificates

    # The approvals API serves with the listener's certificate.
    return default_server(settings), listener_certificates(settings).authority_pem.decode("ascii")


def _read_authority(file: Path) -> str:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        pem = file.read_bytes()
        load_pem_x509_certificates(pem)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file}: expected a CA certificate in PEM ({error}).") from error
    return pem.decode("ascii", "replace")


def _print_list(holds: list[dict[str, Any]], output: Output) -> None:
    if output is not Output.TABLE:
        print_value(holds, output)
    elif holds:
        print_table(COLUMNS, (_cells(hold) for hold in holds))
    else:
        typer.echo("nothing waits for a decision", err=True)


def _watch(client: ApprovalsClient, output: Output, everything: bool) -> None:
    """Print each hold when it is first seen and when its state changes, until interrupted."""
    seen = {} if everything else {hold["id"]: hold["state"] for hold in client.list() if hold["state"] != "pending"}
    if output is Output.TABLE:
        typer.echo(_align(COLUMNS))
    while True:
        for hold in reversed(client.list()):
            if seen.get(hold["id"]) != hold["state"]:
                seen[hold["id"]] = hold["state"]
                _print_news(hold, output)
        time.sleep(WATCH_SECONDS)


def _print_news(hold: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps(hold))
    elif output is Output.YAML:
        typer.echo("---")
        print_value(hold, output)
    else:
        typer.echo(_align(_cells(hold)))


def _align(cells: Sequence[str]) -> str:
    """One line of a table whose other lines are not known yet."""
    shown = map(show_on_one_line, cells)
    return "  ".join(cell.ljust(width) for cell, width in zip(shown, WATCH_WIDTHS, strict=True)).rstrip()


def _cells(hold: dict[str, Any]) -> tuple[str, ...]:
    return (
        hold["id"],
        hold["state"],
        hold["user"],
        hold["verb"],
        "/".join(part for part in (hold["resource"], hold["name"]) if part) or hold["uri"],
        hold["namespace"],
        hold["rule"],
        _age(hold["createdAt"], datetime.now(UTC)),
        hold["decidedBy"],
    )


def _age(created_at: str, now: datetime) -> str:
    seconds = max(0, int((now - datetime.fromisoformat(created_at)).total_seconds()))
    return f"{seconds}s" if seconds < 120 else f"{seconds // 60}m" if seconds < 7200 else f"{seconds // 3600}h"


def _print_hold(hold: dict[str, Any]) -> None:
    approvers = [*hold["approvers"]["users"], *(f"group {group}" for group in hold["approvers"]["groups"])]
    print_pairs(
        [
            ("Hold", hold["id"]),
            ("State", hold["state"]),
            ("User", hold["user"]),
            ("Groups", ", ".join(hold["groups"])),
            ("Issuer", hold["issuer"]),
            ("Wants to", f"{hold['verb']} {hold['resource']} {hold['name']}".strip()),
            ("API group", hold["apiGroup"]),
            ("Namespace", hold["namespace"]),
            ("Path", hold["uri"]),
            ("Command", f"{hold['kubectl']} (as the client says)" if hold["kubectl"] else ""),
            ("Rule", f"{hold['rule']}{': ' if hold['reason'] else ''}{hold['reason']}"),
            ("Approvers", ", ".join(approvers)),
            ("Asked at", hold["createdAt"]),
            ("Expires at", hold["expiresAt"]),
            ("Decided", f"by {hold['decidedBy']} at {hold['decidedAt']}" if hold["decidedBy"] else ""),
            ("Because", hold["decisionReason"]),
            ("Audit ID", hold["auditID"]),
        ]
    )
    if hold["body"]:
        typer.echo(f"\nBody:\n{show_safely(_pretty(hold['body']))}")
    if hold["mayDecide"]:
        deny, approve = (f"holdfast approvals {word} {hold['id']}" for word in ("deny", "approve"))
        typer.echo(f'\nDecide with one of these:\n{deny} --reason "WHY"\n{approve}')


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body


def _confirm(hold: dict[str, Any]) -> None:
    what = f"{hold['user']} {hold['verb']} {hold['resource']} {hold['name']}".strip()
    typer.echo(show_safely(f"{hold['id']} {hold['state']}: {what}"))

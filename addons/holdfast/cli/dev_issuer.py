"""`holdfast dev-issuer`: an OIDC issuer for a machine without one. It gives anyone a token in any name."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import parse_address
from holdfast.errors import BadRequest, ConfigurationError

if TYPE_CHECKING:
    from holdfast.certificates import Authority

AUTHORITY_FILE = "ca.crt"
AUTHORITY_KEY_FILE = "ca.key"
CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
URL_FILE = "url"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
TIMEOUT_SECONDS = 10

StateDir = Annotated[Path, typer.Option("--state-dir", metavar="DIR", help="Folder of its CA, certificate and URL.")]

app = typer.Typer(invoke_without_command=True)


@app.callback()
def dev_issuer(
    context: typer.Context,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Loopback address; port 0 takes a free one.")] = (
        "127.0.0.1:8445"
    ),
    state_dir: StateDir = Path("dev-issuer"),
) -> None:
    """Serve an OIDC issuer for development, on a loopback address only: it gives anyone a token in any name.

    Never name it in the settings of a gateway that protects something.

    \b
    Example:
      holdfast dev-issuer --listen 127.0.0.1:8445 --state-dir dev-issuer
      holdfast dev-issuer token --state-dir dev-issuer --user alice --group platform
    """
    if context.invoked_subcommand is not None:
        return
    from holdfast.identity.dev_issuer import DevIssuer, serve_dev_issuer

    host, port = parse_address(listen)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _issue_certificate(_open_authority(state_dir), state_dir)
    issuer = DevIssuer()
    asyncio.run(
        serve_dev_issuer(
            issuer,
            host=host,
            port=port,
            certificate=state_dir / CERTIFICATE_FILE,
            private_key=state_dir / KEY_FILE,
            ready=lambda _: _announce(issuer.url, state_dir),
        )
    )


@app.command()
def token(
    user: Annotated[str, typer.Option(help="The token's user name.")],
    group: Annotated[list[str] | None, typer.Option(help="A group; may be given again.")] = None,
    audience: Annotated[str, typer.Option(help="Whom the token is for.")] = "holdfast",
    lifetime: Annotated[int, typer.Option(help="Seconds until it expires.")] = 3600,
    state_dir: StateDir = Path("dev-issuer"),
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Write it here (0600) instead of printing it.")
    ] = None,
) -> None:
    """Get a token from the development issuer that runs with this --state-dir.

    \b
    Example:
      holdfast dev-issuer token --user alice --group platform --lifetime 600 -f alice.token
    """
    minted = _ask(state_dir, {"username": user, "groups": group or [], "audience": audience, "lifetime": lifetime})
    if file is None:
        typer.echo(minted)
        return
    from holdfast.certificates import write_private

    write_private(file, minted.encode() + b"\n")


def _open_authority(state_dir: Path) -> Authority:
    """The CA of this folder, kept over restarts so that the gateway's settings stay true."""
    from holdfast.certificates import Authority, make_authority, write_private

    certificate, key = state_dir / AUTHORITY_FILE, state_dir / AUTHORITY_KEY_FILE
    if certificate.exists() and key.exists():
        return Authority.load(certificate.read_bytes(), key.read_bytes())
    made = make_authority("holdfast dev-issuer", now=datetime.now(UTC))
    write_private(key, made.key_pem)
    write_private(certificate, made.certificate_pem)
    return made


def _issue_certificate(authority: Authority, state_dir: Path) -> None:
    from holdfast.certificates import write_private

    pair = authority.issue("holdfast dev-issuer", hosts=LOOPBACK_NAMES, now=datetime.now(UTC), days=30)
    write_private(state_dir / CERTIFICATE_FILE, pair.certificate_pem)
    write_private(state_dir / KEY_FILE, pair.key_pem)


def _announce(url: str, state_dir: Path) -> None:
    (state_dir / URL_FILE).write_text(url + "\n")
    typer.echo(f"ready {url}")
    typer.echo("For development only: whoever reaches this port can be anybody.", err=True)
    typer.echo(f"  its CA:   {state_dir / AUTHORITY_FILE}", err=True)
    typer.echo(f"  a token:  holdfast dev-issuer token --state-dir {state_dir} --user alice --group platform", err=True)


def _ask(state_dir: Path, wanted: dict[str, Any]) -> str:
    """Return a token. Raises ConfigurationError when no issuer answers, BadRequest when it refuses."""
    import httpx

    try:
        url = (state_dir / URL_FILE).read_text().strip()
        with httpx.Client(
            verify=_trust(state_dir / AUTHORITY_FILE), timeout=TIMEOUT_SECONDS, trust_env=False
        ) as client:
            response = client.post(f"{url}/token", json=wanted)
            answer = response.json()
    except (OSError, ValueError, httpx.HTTPError) as error:
        raise ConfigurationError(
            f"no development issuer answers ({error}); start one with `holdfast dev-issuer --state-dir {state_dir}`."
        ) from error
    if response.status_code != httpx.codes.OK:
        raise BadRequest(f"the development issuer refused: {answer.get('error_description', answer)}.")
    return str(answer["access_token"])


def _trust(authority: Path) -> Any:
    import ssl

    return ssl.create_default_context(cafile=authority)

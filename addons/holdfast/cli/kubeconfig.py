"""`holdfast kubeconfig`: what a caller needs to reach the cluster through the gateway."""

from __future__ import annotations

import base64
import os
from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from holdfast.cli.login import (
    Audience,
    ClientId,
    Device,
    Idp,
    Issuer,
    IssuerCa,
    KindOfToken,
    Name,
    NoBrowser,
    Scope,
    TokenType,
    read_request,
)
from holdfast.cli.options import ConfigFile, read_settings
from holdfast.errors import ConfigurationError
from holdfast.login.exec_credential import API_VERSION
from holdfast.login.request import ID, request_options

if TYPE_CHECKING:
    from holdfast.login.request import LoginRequest
    from holdfast.settings import Settings

COMMAND = "holdfast"
INSTALL_HINT = (
    "The command `holdfast` gets your token. Install Holdfast on this machine and put the command on your PATH."
)

_EVERY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104  recognised, not listened on


def kubeconfig(
    user_name: Annotated[str, typer.Option("--user-name", help="Name of the user entry; the token says who it is.")],
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="The caller's token, where kubectl runs, which reads it again and again.",
        ),
    ] = None,
    login: Annotated[
        bool,
        typer.Option("--login", help="kubectl gets the token by `holdfast get-token`, with the options that follow."),
    ] = False,
    issuer: Issuer = "",
    client_id: ClientId = "",
    scope: Scope = None,
    audience: Audience = "",
    token_type: KindOfToken = TokenType.ID,
    issuer_ca: IssuerCa = None,
    device: Device = False,
    no_browser: NoBrowser = False,
    name: Name = "",
    idp: Idp = "",
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="How the caller reaches the gateway; from `listen` when absent.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="Write it here (0600) instead of printing it.")
    ] = None,
    embed_token: Annotated[
        bool, typer.Option("--embed-token", help="Copy the token itself into the kubeconfig; it will not be renewed.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE when it exists.")] = False,
    config: ConfigFile = None,
) -> None:
    """Write a kubeconfig that goes through the gateway, with the gateway's CA in it.

    With --token-file the token is in a file, as a job's is. With --login kubectl asks `holdfast get-token` on the
    caller's machine, which logs people in; --issuer may be left out where the gateway trusts one only.

    \b
    Example:
      holdfast kubeconfig --user-name agent --token-file agent.token -f agent.kubeconfig
      kubectl --kubeconfig agent.kubeconfig get pods
      holdfast kubeconfig --user-name me --login --client-id kubectl --scope groups -f people.kubeconfig
    """
    if login == (token_file is not None):
        raise ConfigurationError("give --token-file FILE, or --login with --client-id: one of them.")
    if login and embed_token:
        raise ConfigurationError("--embed-token: goes with --token-file; with --login there is no token yet.")
    if not login:
        _require_none_of_a_login(
            {
                "--issuer": issuer,
                "--client-id": client_id,
                "--scope": scope,
                "--audience": audience,
                "--token-type": token_type != TokenType.ID,
                "--issuer-ca": issuer_ca,
                "--device": device,
                "--no-browser": no_browser,
                "--name": name,
                "--idp": idp,
            }
        )
    from holdfast.hooks.listener import listener_certificates

    settings = read_settings(config)
    certificates = listener_certificates(settings)
    if token_file is not None:
        user: dict[str, Any] = _describe_user(token_file.absolute(), embed_token)
    else:
        place = issuer or _only_issuer(settings)
        request = read_request(place, client_id, scope, audience, token_type, name, idp)
        _require_trusted(request, settings)
        authority = issuer_ca or _find_authority(request.issuer, settings, certificates.authority)
        user = {"exec": _describe_plugin(request, authority, device=device, no_browser=no_browser)}
    document = build_kubeconfig(
        cluster=settings.cluster,
        server=_require_https(server or default_server(settings)),
        authority_pem=certificates.authority_pem,
        user_name=user_name,
        user=user,
    )
    _write(document, file, force)


def build_kubeconfig(
    *, cluster: str, server: str, authority_pem: bytes, user_name: str, user: dict[str, Any]
) -> dict[str, Any]:
    """Return a kubeconfig (client-go `tools/clientcmd/api/v1/types.go`) with one cluster, user and context."""
    context = f"{user_name}@{cluster}"
    authority = base64.b64encode(authority_pem).decode("ascii")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user_name, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": cluster, "user": user_name}}],
        "current-context": context,
    }


def default_server(settings: Settings) -> str:
    """The gateway's URL as `listen` tells it. Raises ConfigurationError when the port is only known at run time."""
    listen = settings.listen
    if listen.port == 0:
        raise ConfigurationError("listen.port is 0, so the port is not known here; give --server https://HOST:PORT.")
    host = listen.hosts[0] if listen.host in _EVERY_ADDRESS and listen.hosts else listen.host
    return f"https://{f'[{host}]' if ':' in host else host}:{listen.port}"


def _require_https(server: str) -> str:
    url = urlsplit(server)
    if url.scheme != "https" or not url.hostname or url.path.strip("/") or url.query:
        raise ConfigurationError(f"--server: found {server!r}; expected https://HOST:PORT.")
    return server.rstrip("/")


def _require_none_of_a_login(options: dict[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise ConfigurationError(f"{option}: goes with --login, not with --token-file; leave it out.")


def _describe_user(token_file: Path, embed: bool) -> dict[str, str]:
    """The user entry. A file that is here is read in either case, so that a wrong one is noticed."""
    from holdfast.credential.sources import read_token

    if embed:
        return {"token": read_token(token_file)}
    if os.access(token_file, os.R_OK):
        read_token(token_file)
    else:
        typer.echo(f"{token_file} cannot be read here; it must be there where kubectl runs.", err=True)
    return {"tokenFile": str(token_file)}


def _find_authority(issuer_url: str, settings: Settings, own_authority: Path | None) -> Path | None:
    """The CA of an issuer's HTTPS as the settings have it, or our own; None where the system's are trusted."""
    own = settings.identity.tokens
    file = own_authority if own is not None and issuer_url == own.url else None
    for issuer in (authenticator.issuer for authenticator in settings.identity.jwt):
        if issuer.url == issuer_url:
            file = issuer.certificate_authority_file
            if issuer.certificate_authority:
                typer.echo(
                    f"The CA of {issuer_url} stands in the settings as text: write it to a file, and give that with "
                    "--issuer-ca, or logins fail.",
                    err=True,
                )
    if file is not None:
        typer.echo(f"Logins trust --issuer-ca={file}; it must be there where kubectl runs, too.", err=True)
    return file


def _describe_plugin(
    request: LoginRequest, authority: Path | None, *, device: bool, no_browser: bool
) -> dict[str, Any]:
    """What client-go starts to get a token (`tools/clientcmd/api/v1/types.go`, ExecConfig)."""
    options = request_options(request)
    options += [f"--issuer-ca={authority.absolute()}"] if authority is not None else []
    options += ["--device"] if device else []
    options += ["--no-browser"] if no_browser else []
    return {
        "apiVersion": API_VERSION,
        "command": COMMAND,
        "args": ["get-token", *options],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": False,
        "installHint": INSTALL_HINT,
    }


def _only_issuer(settings: Settings) -> str:
    issuers = list(_trusted(settings))
    if len(issuers) != 1:
        raise ConfigurationError(f"--issuer: the gateway trusts several; give one of {', '.join(issuers)}.")
    return issuers[0]


def _trusted(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Where people can log in, and for whom tokens must be: at an issuer, or by way of SAML at the gateway itself."""
    identity = settings.identity
    trusted = {authenticator.issuer.url: authenticator.issuer.audiences for authenticator in identity.jwt}
    if identity.tokens is not None and identity.saml:
        trusted[identity.tokens.url] = (identity.tokens.url,)
    return trusted


def _require_trusted(request: LoginRequest, settings: Settings) -> None:
    """A kubeconfig whose tokens the gateway would refuse is noticed here."""
    trusted, own = _trusted(settings), settings.identity.tokens
    if request.issuer not in trusted:
        raise ConfigurationError(f"--issuer: the gateway does not trust {request.issuer}; add it to identity.jwt.")
    is_own = own is not None and request.issuer == own.url
    if own is not None and is_own and request.kind == ID:
        raise ConfigurationError(
            f"--issuer: {own.url} is the gateway, which gives access tokens; add --token-type access --audience "
            f"{own.url}."
        )
    _require_one_provider(request, settings)
    option, audience = ("--client-id", request.client_id) if request.kind == ID else ("--audience", request.audience)
    if audience not in trusted[request.issuer]:
        expected = ", ".join(trusted[request.issuer])
        mend = "give that" if is_own else "add it to that issuer's audiences in the settings, or give one of them"
        raise ConfigurationError(f"{option}: the gateway takes tokens for {expected}, found {audience!r}; {mend}.")


def _require_one_provider(request: LoginRequest, settings: Settings) -> None:
    own, providers = settings.identity.tokens, [provider.entity_id for provider in settings.identity.saml]
    if own is None or request.issuer != own.url:
        if request.idp:
            raise ConfigurationError(f"--idp: {request.issuer} is no gateway with SAML providers; leave it out.")
    elif request.idp and request.idp not in providers:
        raise ConfigurationError(f"--idp: found {request.idp!r}; expected one of {', '.join(providers)}.")
    elif not request.idp and len(providers) > 1:
        raise ConfigurationError(f"--idp: the gateway has several SAML providers; give one of {', '.join(providers)}.")


def _write(document: dict[str, Any], file: Path | None, force: bool) -> None:
    from holdfast.certificates import write_private
    from holdfast.cli.output import render_yaml

    text = render_yaml(document)
    if file is None:
        typer.echo(text)
        return
    if file.exists() and not force:
        raise ConfigurationError(f"{file}: exists already; give another FILE, or --force to replace it.")
    write_private(file, text.encode() + b"\n")
    typer.echo(f"written: {file}", err=True)

"""`holdfast login`, `holdfast get-token`, `holdfast logout`: a person's token, for kubectl."""

from __future__ import annotations

import asyncio
import enum
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.output import show_safely
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.login.cache import NotTrusted, TokenCache, find_folder
from holdfast.login.cached import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, read_given_token, render
from holdfast.login.exec_credential import allows_questions
from holdfast.login.request import ACCESS, ID, make_request

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from holdfast.login.request import LoginRequest
    from holdfast.login.session import Session


class TokenType(enum.StrEnum):
    """What `--token-type` takes."""

    ID = ID
    ACCESS = ACCESS


Issuer = Annotated[
    str, typer.Option(metavar="URL", help="The OpenID provider, as its tokens' `iss` has it: https://id.example.com.")
]
ClientId = Annotated[str, typer.Option(metavar="ID", help="The public client that is registered there, as kubectl.")]
Scope = Annotated[
    list[str] | None,
    typer.Option(metavar="SCOPE", help="A scope beside openid, as groups or email; may be given again."),
]
Audience = Annotated[
    str, typer.Option(metavar="AUDIENCE", help="Whom access tokens are to be for, as https://gateway.example.com.")
]
KindOfToken = Annotated[
    TokenType,
    typer.Option(
        "--token-type", help="Whether the gateway gets the ID token, or the access token: a JWT, with --audience."
    ),
]
Name = Annotated[str, typer.Option(metavar="NAME", help="Keeps several logins at one issuer apart, as admin and me.")]
Idp = Annotated[
    str,
    typer.Option(
        "--idp", metavar="ENTITY-ID", help="Which SAML provider, where the issuer is a gateway that has several."
    ),
]
IssuerCa = Annotated[
    Path | None,
    typer.Option(
        "--issuer-ca", metavar="FILE", help="CA of the issuer's HTTPS, PEM, as issuer-ca.crt; else the system's."
    ),
]
Device = Annotated[bool, typer.Option("--device", help="Enter a code in a browser on any machine instead.")]
NoBrowser = Annotated[
    bool, typer.Option("--no-browser", help="Open no browser; print the address to open on this machine.")
]


def login(
    issuer: Issuer,
    client_id: ClientId,
    scope: Scope = None,
    audience: Audience = "",
    token_type: KindOfToken = TokenType.ID,
    issuer_ca: IssuerCa = None,
    device: Device = False,
    no_browser: NoBrowser = False,
    name: Name = "",
    idp: Idp = "",
) -> None:
    """Log in at an OpenID provider; the token is kept for `holdfast get-token`.

    A browser opens (authorization code with PKCE). Over SSH, or without a desktop, a code is printed that you enter
    in a browser anywhere, if the provider knows the device flow.

    \b
    Example:
      holdfast login --issuer https://id.example.com --client-id kubectl --scope groups
      holdfast login --issuer https://id.example.com --client-id kubectl --device
    """
    request = make_request(
        issuer, client_id, scopes=scope or (), audience=audience, kind=token_type, name=name, idp=idp
    )
    tokens = _run(_open_session(request, issuer_ca, device, no_browser).log_in())
    until = time.strftime("%H:%M:%S", time.localtime(tokens.expires_at))
    renewed = "and is renewed by itself" if tokens.refresh_token else "and is not renewed: the provider gave nothing to"
    _tell(f"Logged in as {tokens.subject}. The token is good until {until} {renewed}.")


def get_token(
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
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar=TOKEN_FILE_VARIABLE,
            help=f"Give out the token in this file, as it is; or set ${TOKEN_VARIABLE} to the token. For jobs.",
        ),
    ] = None,
    bare: Annotated[
        bool, typer.Option("--bare", help=f"Print the token alone, as for the ${TOKEN_VARIABLE} of another command.")
    ] = False,
) -> None:
    """Print a token for kubectl (its credential plugin; `holdfast kubeconfig --login` sets it up).

    The token is kept from the last login, and renewed in its last minute. Where it takes a new login, that happens
    at a terminal only; elsewhere the command ends with code 1 and says what to run.

    \b
    Example:
      holdfast get-token --issuer https://id.example.com --client-id kubectl --scope groups
      holdfast get-token --token-file job.token
    """
    may_ask = _may_ask()
    try:
        given = read_given_token(str(token_file or ""), os.environ)
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error
    if given:
        typer.echo(render(given, None, bare=bare))
        return
    if not issuer or not client_id:
        raise ConfigurationError(
            f"no token: give --issuer and --client-id, or --token-file FILE, or set ${TOKEN_VARIABLE}."
        )
    request = make_request(
        issuer, client_id, scopes=scope or (), audience=audience, kind=token_type, name=name, idp=idp
    )
    tokens = _run(_open_session(request, issuer_ca, device, no_browser).get_tokens(may_ask=may_ask))
    typer.echo(render(tokens.token, tokens.expires_at, bare=bare))


def logout(
    issuer: Issuer = "",
    client_id: ClientId = "",
    scope: Scope = None,
    audience: Audience = "",
    token_type: KindOfToken = TokenType.ID,
    issuer_ca: IssuerCa = None,
    name: Name = "",
    idp: Idp = "",
    everything: Annotated[bool, typer.Option("--all", help="Every login on this machine.")] = False,
) -> None:
    """Forget the tokens of a login; the options are those of `holdfast login`.

    The provider is asked to end what would renew them (RFC 7009). Where that fails, they are forgotten here all the
    same, and the command ends with code 1.

    \b
    Example:
      holdfast logout --issuer https://id.example.com --client-id kubectl --scope groups
      holdfast logout --all
    """
    if everything:
        _log_out_everywhere(issuer_ca)
        return
    if not issuer or not client_id:
        raise ConfigurationError("which login? Give --issuer and --client-id, or --all.")
    request = make_request(
        issuer, client_id, scopes=scope or (), audience=audience, kind=token_type, name=name, idp=idp
    )
    was_there = _run(_open_session(request, issuer_ca).log_out())
    _tell("Logged out." if was_there else "Nobody was logged in there.")


def _log_out_everywhere(authority: Path | None) -> None:
    cache = TokenCache(find_folder(os.environ))
    requests = cache.requests()
    failures = []
    for request in requests:
        try:
            _run(_open_session(request, authority).log_out())
        except HoldfastError as failure:
            failures.append(str(failure))
    _tell(f"Forgotten: {len(requests) + cache.remove_all()} logins.")
    if failures:
        raise HoldfastError("\n".join(failures))


def _may_ask() -> bool:
    try:
        return allows_questions(os.environ) and sys.stdin.isatty()
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error


def _open_session(
    request: LoginRequest, authority: Path | None, device: bool = False, no_browser: bool = False
) -> Session:
    from holdfast.login.browser import has_desktop, open_browser
    from holdfast.login.session import Session, Surroundings, choose_way

    desktop = has_desktop(os.environ, sys.platform)
    return Session(
        request,
        TokenCache(find_folder(os.environ)),
        authority,
        choose_way(device=device, no_browser=no_browser, desktop=desktop),
        Surroundings(
            clock=time.time,
            sleep=asyncio.sleep,
            random_bytes=secrets.token_bytes,
            open_browser=open_browser,
            tell=_tell,
        ),
    )


def _run[T](getting: Coroutine[Any, Any, T]) -> T:
    from holdfast.login.browser import nothing_on_stdout

    try:
        with nothing_on_stdout():
            return asyncio.run(getting)
    except NotTrusted as fault:
        raise ConfigurationError(f"{fault}; remove it, or set its mode right.") from fault


def _tell(text: str) -> None:
    typer.echo(show_safely(text), err=True)

"""`holdfast login`, `holdfast get-token`, `holdfast logout`: a person's token, for kubectl."""

from __future__ import annotations

import asyncio
import enum
import os
import secrets
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import OutputFormat  # noqa: TC001  typer reads the annotations
from holdfast.cli.output import Output, print_table, print_value, show_safely, show_second
from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.login.cache import NotTrusted, TokenCache, find_folder
from holdfast.login.cached import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, read_given_token, render
from holdfast.login.exec_credential import allows_questions
from holdfast.login.request import ACCESS, ID, make_request, request_options

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from holdfast.login.cache import Tokens
    from holdfast.login.request import LoginRequest
    from holdfast.login.session import Session


COLUMNS = ("ISSUER", "CLIENT", "SCOPES", "SUBJECT", "UNTIL", "RENEWED", "OTHER OPTIONS")


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
    show: Annotated[bool, typer.Option("--list", help="Log nobody in; list the logins that are kept.")] = False,
    output: OutputFormat = Output.TABLE,
) -> None:
    """Log in at an OpenID provider; the token is kept for `holdfast get-token`.

    A browser opens (authorization code with PKCE). Over SSH, or without a desktop, a code is printed that you enter
    in a browser anywhere, if the provider knows the device flow.

    \b
    Example:
      holdfast login --issuer https://id.example.com --client-id kubectl --scope groups
      holdfast login --issuer https://id.example.com --client-id kubectl --device
      holdfast login --list
    """
    if show:
        _list_logins(output)
        return
    if not issuer and not client_id:
        raise ConfigurationError("which login? Give --issuer and --client-id, or --list to see those that are kept.")
    request = read_request(issuer, client_id, scope, audience, token_type, name, idp)
    tokens = _run(_open_session(request, issuer_ca, device, no_browser).log_in())
    how = (
        " and is renewed by itself."
        if tokens.refresh_token
        else "; the provider gave no refresh token, so log in again then."
    )
    _tell(f"Logged in as {tokens.subject}. The token is good until {show_second(tokens.expires_at)}{how}")


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
    given = read_given(token_file)
    if given:
        typer.echo(render(given, None, bare=bare))
        return
    if not issuer and not client_id:
        raise ConfigurationError(
            f"no token: give --issuer and --client-id, or --token-file FILE, or set ${TOKEN_VARIABLE}."
        )
    request = read_request(issuer, client_id, scope, audience, token_type, name, idp)
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
        if issuer or client_id or name:
            raise ConfigurationError("--all: means every login; leave out --issuer, --client-id and --name, or --all.")
        _log_out_everywhere(issuer_ca)
        return
    if not issuer and not client_id:
        raise ConfigurationError("which login? Give --issuer and --client-id, or --all.")
    request = read_request(issuer, client_id, scope, audience, token_type, name, idp)
    session = _open_session(request, issuer_ca)
    was_there = _run(session.log_out())
    if not was_there:
        _require_no_other(request, session.cache)
    _tell("Logged out." if was_there else "Nobody was logged in there.")


def read_request(
    issuer: str,
    client_id: str,
    scope: list[str] | None,
    audience: str,
    token_type: TokenType,
    name: str,
    idp: str,
) -> LoginRequest:
    """What the options of these commands mean together. Raises ConfigurationError."""
    for option, value in (("--issuer", issuer), ("--client-id", client_id)):
        if not value:
            raise ConfigurationError(f"{option}: is missing; a login is at an --issuer and for a --client-id.")
    try:
        return make_request(
            issuer, client_id, scopes=scope or (), audience=audience, kind=token_type, name=name, idp=idp
        )
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error


def _require_no_other(request: LoginRequest, cache: TokenCache) -> None:
    """Who logs out with other options than they logged in with is not told that all is well."""
    others = [other for other in cache.requests() if other[:2] == request[:2]]
    if others:
        options = "\n".join(f"  {shlex.join(request_options(other))}" for other in others)
        raise HoldfastError(f"nobody is logged in there with these options; the logins that are kept have:\n{options}")


def _list_logins(output: Output) -> None:
    """What is kept, and of each token only whose it is and how long."""
    logins = TokenCache(find_folder(os.environ)).logins()
    if output != Output.TABLE:
        print_value([_describe_login(*login) for login in logins], output)
        return
    rows = []
    for request, tokens in logins:
        rest = request_options(request)[2 + len(request.scopes) :]
        until = show_second(tokens.expires_at)
        renewed = "yes" if tokens.refresh_token else "no"
        rows.append(
            (
                request.issuer,
                request.client_id,
                " ".join(request.scopes),
                tokens.subject,
                until,
                renewed,
                " ".join(rest),
            )
        )
    print_table(COLUMNS, rows)


def _describe_login(request: LoginRequest, tokens: Tokens) -> dict[str, Any]:
    return {
        "issuer": request.issuer,
        "clientID": request.client_id,
        "scopes": list(request.scopes),
        "subject": tokens.subject,
        "until": show_second(tokens.expires_at),
        "renewed": bool(tokens.refresh_token),
        "options": request_options(request),
    }


def _log_out_everywhere(authority: Path | None) -> None:
    cache = TokenCache(find_folder(os.environ))
    requests = cache.requests()
    failures = []
    for request in requests:
        try:
            _run(_open_session(request, authority).log_out())
        except HoldfastError as failure:
            failures.append(str(failure))
    unread = cache.remove_all()
    if unread:
        failures.append(
            f"{unread} of them were not as this program leaves them, and a copy could still be renewed; end those "
            "sessions at their providers."
        )
    _tell(f"Forgotten: {len(requests) + unread} logins.")
    if failures:
        raise HoldfastError("\n".join(failures))


def read_given(token_file: Path | None) -> str:
    """A job's own token, of --token-file or the environment; empty where there is none. Raises ConfigurationError."""
    try:
        return read_given_token(str(token_file or ""), os.environ)
    except ValueError as error:
        raise ConfigurationError(f"{error}.") from error


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

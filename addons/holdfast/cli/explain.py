"""`holdfast identity explain`: whose a token is for the gateway, or why it is nobody's."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.login import read_given
from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_pairs, print_value, show_second
from holdfast.errors import ConfigurationError, Unauthorized
from holdfast.login.cached import TOKEN_FILE_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from holdfast.exchange import Identity
    from holdfast.identity.denylist import Revocation
    from holdfast.settings import Settings

TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", envvar=TOKEN_FILE_VARIABLE, help=f"The token; or set ${TOKEN_VARIABLE} to it."),
]
CLAIMED = ("iss", "aud", "sub", "iat", "nbf", "exp")
"""What an unverified token is shown to say of itself: enough to see what the settings lack."""


def explain(token_file: TokenFile = None, output: OutputFormat = Output.TABLE, config: ConfigFile = None) -> None:
    """Tell who the gateway takes the bearer of a token for: names, groups, and the claims that policies match.

    Or why it refuses the token, as the record has it, and what the token says of itself. The issuers in the settings
    are asked for their keys, the gateway is not; nothing is recorded. Exits with 1 when the token is refused.

    \b
    Example:
      holdfast identity explain --token-file ci.token
      HOLDFAST_TOKEN=$(holdfast get-token --bare ...) holdfast identity explain -o json
    """
    token = _read_token(token_file)
    settings = read_settings(config)
    try:
        identity = asyncio.run(_identify(settings, token))
    except Unauthorized as refusal:
        _print_refusal(refusal, _read_claimed(token), output)
        raise typer.Exit(1) from refusal
    _print_identity(identity, output)


def _read_token(token_file: Path | None) -> str:
    token = read_given(token_file)
    if not token:
        raise ConfigurationError(
            f"no token: give --token-file FILE, or set ${TOKEN_FILE_VARIABLE} or ${TOKEN_VARIABLE}."
        )
    return token


async def _identify(settings: Settings, token: str) -> Identity:
    from holdfast.identity.denylist import Denylist
    from holdfast.identity.opening import open_authenticator

    authenticator = open_authenticator(settings, make_keys=False)
    authenticator.denylist = Denylist(await asyncio.to_thread(_read_revocations, settings))
    await authenticator.start()
    try:
        return await authenticator.authenticate(f"Bearer {token}")
    finally:
        await authenticator.close()


def _read_revocations(settings: Settings) -> list[Revocation]:
    from holdfast.database import Database
    from holdfast.identity.store import RevocationStore

    try:
        with closing(Database.open_readonly(settings.read_database_url)) as database:
            return RevocationStore(database).all()
    except ConfigurationError as fault:
        typer.echo(f"Revocations were not looked at. {fault}", err=True)
        return []


def _read_claimed(token: str) -> dict[str, Any]:
    from holdfast.identity.token import parse_token

    try:
        found = parse_token(token)
    except Unauthorized:
        return {}
    told = {name: found.claims[name] for name in CLAIMED if name in found.claims}
    return {"alg": found.algorithm, "kid": found.key_id} | told


def _print_refusal(refusal: Unauthorized, claimed: dict[str, Any], output: Output) -> None:
    if output is not Output.TABLE:
        refused = {"why": refusal.why, "detail": refusal.detail, "message": str(refusal)}
        print_value({"refused": refused, "claimed": _plain(claimed)}, output)
        return
    print_pairs([("refused", refusal.why), ("because of", refusal.detail), ("told to the caller", str(refusal))])
    if claimed:
        typer.echo("\nWhat the token says of itself, believed or not:")
        print_pairs((name, _tell(name, value)) for name, value in claimed.items())


def _print_identity(identity: Identity, output: Output) -> None:
    from holdfast.exchange import flatten_claims

    until = show_second(identity.expires_at)
    if output is not Output.TABLE:
        names = {name: getattr(identity, name) for name in ("issuer", "username", "groups", "uid", "extra", "claims")}
        print_value(_plain({**names, "expiresAt": until}), output)
        return
    print_pairs(
        [
            ("user", identity.username),
            ("groups", "\n".join(identity.groups)),
            ("uid", identity.uid),
            *((f"extra {key}", ", ".join(values)) for key, values in identity.extra.items()),
            ("issuer", identity.issuer),
            ("until", until),
        ]
    )
    typer.echo("\nClaims, as policies match them:")
    print_pairs(flatten_claims(identity.claims))


def _tell(name: str, value: Any) -> str:
    """A claim for people: times as such, lists and texts as they are."""
    if name in {"iat", "nbf", "exp"} and type(value) is int:
        return f"{value} ({show_second(value)})"
    return "\n".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _plain(value: dict[str, Any]) -> Any:
    """JSON's own types for read-only ones."""
    from holdfast.identity.serialization import write_json

    return json.loads(write_json(value))

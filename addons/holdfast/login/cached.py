"""The cached path of `holdfast get-token`: an answer without asking anybody.

kubectl starts its plugin for every command, so this path is short: it reads the few options itself, looks for a token
that is given or kept, and imports only the standard library and its four neighbours here. Whatever it does not
know, an option, a token that is old, a file that is not right, it leaves to the whole command, which says what is
wrong. A test holds it to that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.login.cache import NotTrusted, TokenCache, find_folder
from holdfast.login.exec_credential import allows_questions, render_credential
from holdfast.login.request import ID, KINDS, make_request

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

TOKEN_VARIABLE = "HOLDFAST_TOKEN"  # noqa: S105  the name of a variable
TOKEN_FILE_VARIABLE = "HOLDFAST_TOKEN_FILE"  # noqa: S105
MAX_TOKEN_FILE_BYTES = 1 << 16

_VALUES = frozenset(
    {
        "--issuer",
        "--client-id",
        "--scope",
        "--audience",
        "--name",
        "--idp",
        "--token-type",
        "--token-file",
        "--issuer-ca",
    }
)
_FLAGS = frozenset({"--device", "--no-browser", "--bare"})

type _Options = dict[str, list[str]]


def answer(arguments: Sequence[str], environment: Mapping[str, str], now: float) -> str | None:
    """What `holdfast get-token ARGUMENTS` prints where a token is at hand, else None.

    `now` is in seconds since the epoch.
    """
    options = _parse(arguments)
    if options is None:
        return None
    try:
        allows_questions(environment)
        token = read_given_token(_last(options, "--token-file"), environment)
        found = (token, None) if token else _recall(options, environment, now)
    except (ValueError, OSError, NotTrusted):
        return None
    return None if found is None else render(*found, bare="--bare" in options)


def render(token: str, expires_at: int | None, *, bare: bool) -> str:
    """What is printed: an ExecCredential, or with `bare` the token alone."""
    return token if bare else render_credential(token, expires_at)


def read_given_token(file: str, environment: Mapping[str, str]) -> str:
    """The token in `file`, else in `$HOLDFAST_TOKEN_FILE`, else in `$HOLDFAST_TOKEN`; empty when none of them is given.

    Raises ValueError for what is no bearer token, OSError when the file cannot be read.
    """
    source = file or environment.get(TOKEN_FILE_VARIABLE, "")
    if source:
        with open(source, "rb") as stream:  # also /dev/stdin and pipes
            text = stream.read(MAX_TOKEN_FILE_BYTES).decode("ascii", "replace").strip()
    else:
        source = f"${TOKEN_VARIABLE}"
        text = environment.get(TOKEN_VARIABLE, "").strip()
        if not text:
            return ""
    if not is_bearer(text):
        raise ValueError(f"{source}: expected one bearer token on one line")
    return text


def is_bearer(text: str) -> bool:
    """Whether a text can stand in `Authorization: Bearer` (visible ASCII; RFC 6750 section 2.1)."""
    return bool(text) and all("!" <= character <= "~" for character in text)


def _recall(options: _Options, environment: Mapping[str, str], now: float) -> tuple[str, int] | None:
    request = make_request(
        _last(options, "--issuer"),
        _last(options, "--client-id"),
        scopes=options.get("--scope", ()),
        audience=_last(options, "--audience"),
        kind=_last(options, "--token-type") or ID,
        name=_last(options, "--name"),
        idp=_last(options, "--idp"),
    )
    if not (request.issuer and request.client_id and request.kind in KINDS):
        return None
    tokens = TokenCache(find_folder(environment)).read(request)
    if tokens is None or not tokens.is_fresh(now):
        return None
    return tokens.token, tokens.expires_at


def _parse(arguments: Sequence[str]) -> _Options | None:
    """The options by name, the values of each in order; None when there is anything else."""
    options: _Options = {}
    rest = iter(arguments)
    for argument in rest:
        if argument in _FLAGS:
            options[argument] = []
            continue
        name, value = _split(argument, rest)
        if name not in _VALUES or value is None:
            return None
        options.setdefault(name, []).append(value)
    return options


def _split(argument: str, rest: Iterator[str]) -> tuple[str, str | None]:
    name, equals, value = argument.partition("=")
    return name, value if equals else next(rest, None)


def _last(options: _Options, name: str) -> str:
    return options.get(name, [""])[-1]

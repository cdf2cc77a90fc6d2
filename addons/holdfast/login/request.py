"""Which tokens are asked for: an issuer, a client there, and what the tokens are to be good for.

Part of the cached path, so nothing here needs more than the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

try:
    from _sha2 import sha256  # type: ignore[import-not-found]  # as random does: hashlib would load OpenSSL
except ImportError:  # a Python that takes its hashes from OpenSSL only
    from hashlib import sha256

if TYPE_CHECKING:
    from collections.abc import Iterable

OPENID = "openid"

ID = "id"
ACCESS = "access"
KINDS = (ID, ACCESS)


class LoginRequest(NamedTuple):
    """What a login is for; two requests that are equal share one login.

    `scopes` are those beside `openid`. `audience` is whom access tokens are for, empty for what the provider chooses.
    `kind` says whether the gateway gets the ID token or the access token. `name` keeps the logins of several people at
    one issuer apart. `idp` is the SAML provider, by its entityID, where the issuer is a gateway that trusts several.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ()
    audience: str = ""
    kind: str = ID
    name: str = ""
    idp: str = ""

    @property
    def key(self) -> str:
        """A name for files, the same for the same request: hex digits."""
        parts = [self.issuer, self.client_id, " ".join(self.scopes), self.audience, self.kind, self.name]
        parts += [self.idp] if self.idp else []  # so that logins from before there was one are still found
        digest: str = sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
        return digest[:32]


def make_request(
    issuer: str,
    client_id: str,
    *,
    scopes: Iterable[str] = (),
    audience: str = "",
    kind: str = ID,
    name: str = "",
    idp: str = "",
) -> LoginRequest:
    """The request with its scopes in one order, each once; one text may hold several, as in OAuth.

    Raises ValueError, which names the option, for what would be taken and mean nothing.
    """
    scopes = list(scopes)
    for text in scopes:
        if not text.strip() or "," in text:
            raise ValueError(f"--scope: found {text!r}; give each scope by itself, as --scope groups --scope email")
    if audience and kind == ID:
        raise ValueError("--audience: says whom access tokens are for; add --token-type access, or leave it out")
    wanted = {scope for text in scopes for scope in text.split()} - {OPENID}
    return LoginRequest(issuer, client_id, tuple(sorted(wanted)), audience, kind, name, idp)


def request_options(request: LoginRequest) -> list[str]:
    """The options of `login`, `get-token` and `logout` that mean this request."""
    options = [f"--issuer={request.issuer}", f"--client-id={request.client_id}"]
    options += [f"--scope={scope}" for scope in request.scopes]
    options += [f"--audience={request.audience}"] if request.audience else []
    options += [f"--token-type={request.kind}"] if request.kind != ID else []
    options += [f"--name={request.name}"] if request.name else []
    options += [f"--idp={request.idp}"] if request.idp else []
    return options

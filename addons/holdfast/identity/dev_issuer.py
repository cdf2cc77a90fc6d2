"""The development issuer: an OIDC issuer for the demo and the tests, which signs whatever anyone asks for.

`POST /token` takes a user name and groups and returns a token in that name, with no password: whoever reaches it
can be anybody. It exists so that a machine without an identity provider can show real tokens, real discovery and
real key rotation. It binds to loopback addresses only, and a gateway trusts it only where its settings say so.

    GET  /.well-known/openid-configuration   OpenID Connect Discovery 1.0, section 4
    GET  /jwks                               RFC 7517: the signing key and the one before it
    POST /token                              username, groups, audience, lifetime (seconds), as a form or JSON;
                                             answers and refuses in the shapes of RFC 6749 section 5
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jose import jwk, jws
from jose.backends.base import Key
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from holdfast.errors import ConfigurationError
from holdfast.serving import Server, Service

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from starlette.requests import Request

LOOPBACK = "127.0.0.1"
DEFAULT_AUDIENCE = "holdfast"
DEFAULT_LIFETIME_SECONDS = 3600
PUBLISHED_KEYS = 2

type Algorithm = Literal["RS256", "ES256"]


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `POST /token` is asked for; `lifetime` in seconds."""

    username: str
    groups: tuple[str, ...] = ()
    audience: str = DEFAULT_AUDIENCE
    lifetime: int = DEFAULT_LIFETIME_SECONDS


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the name under which its public half is published."""

    key_id: str
    algorithm: Algorithm
    key: Key

    def to_public_jwk(self) -> dict[str, Any]:
        """The public half, as a member of a JWKS."""
        return {**self.key.public_key().to_dict(), "kid": self.key_id, "use": "sig"}


class DevIssuer:
    """Holds the keys; mints tokens in-process (`mint`) and over HTTP (`application`).

    `url` is the `iss` of its tokens; left empty, it becomes `https://HOST:PORT` when the issuer is served.
    """

    def __init__(
        self, url: str = "", *, algorithm: Algorithm = "ES256", clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since the epoch."""
        self.url = url
        self._algorithm = algorithm
        self._clock = clock
        self._keys = [_generate_key(algorithm)]

    def rotate(self) -> None:
        """Sign with a new key from now on; the key before stays published, the ones before that do not."""
        self._keys = [_generate_key(self._algorithm), *self._keys][:PUBLISHED_KEYS]

    def mint(
        self,
        username: str,
        groups: Sequence[str] = (),
        *,
        audience: str | Sequence[str] = DEFAULT_AUDIENCE,
        lifetime: int = DEFAULT_LIFETIME_SECONDS,
        now: float | None = None,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """Sign a token for `username`, from `now` on for `lifetime` seconds; `claims` are added, or replace."""
        issued_at = int(self._clock() if now is None else now)
        payload = {
            "iss": self.url,
            "sub": username,
            "groups": list(groups),
            "aud": audience if isinstance(audience, str) else list(audience),
            "iat": issued_at,
            "nbf": issued_at,
            "exp": issued_at + lifetime,
            **(claims or {}),
        }
        signer = self._keys[0]
        return jws.sign(payload, signer.key, headers={"kid": signer.key_id}, algorithm=signer.algorithm)

    def jwks(self) -> dict[str, Any]:
        """The published keys (RFC 7517 section 5)."""
        return {"keys": [key.to_public_jwk() for key in self._keys]}

    def discovery(self) -> dict[str, Any]:
        """The metadata document."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "token_endpoint": f"{self.url}/token",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self._keys}),
        }

    def application(self) -> Starlette:
        """The three endpoints."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._get_discovery),
                Route("/jwks", self._get_jwks),
                Route("/token", self._post_token, methods=["POST"]),
            ]
        )

    async def _get_discovery(self, request: Request) -> JSONResponse:
        return JSONResponse(self.discovery())

    async def _get_jwks(self, request: Request) -> JSONResponse:
        return JSONResponse(self.jwks())

    async def _post_token(self, request: Request) -> JSONResponse:
        try:
            asked = _read_token_request(request.headers.get("content-type", ""), await request.body())
        except ValueError as error:
            return JSONResponse({"error": "invalid_request", "error_description": str(error)}, status_code=400)
        token = self.mint(asked.username, asked.groups, audience=asked.audience, lifetime=asked.lifetime)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": asked.lifetime}
        return JSONResponse(answer, headers={"Cache-Control": "no-store"})


async def serve_dev_issuer(
    issuer: DevIssuer,
    *,
    host: str,
    port: int,
    certificate: Path,
    private_key: Path,
    ready: Callable[[int], None],
) -> None:
    """Serve `issuer` over TLS until cancelled or interrupted; `ready` gets the port once it takes connections.

    Port 0 takes a free one. Raises ConfigurationError when `host` is not a loopback address, the port is taken,
    or the certificate cannot be used.
    """
    if host not in {LOOPBACK, "localhost"}:
        raise ConfigurationError(
            f"The development issuer signs tokens for anyone, so it does not listen on {host}: use {LOOPBACK}."
        )
    service = Service("the development issuer", "choose another with --listen", certificate, private_key)
    with closing(service.bind(LOOPBACK, port)) as listener:
        bound_port: int = listener.getsockname()[1]
        issuer.url = issuer.url or f"https://{host}:{bound_port}"
        server = Server(service.configure(issuer.application()), ignore_interrupt=False)
        listener.listen()
        ready(bound_port)
        await _serve_until_cancelled(server, listener)


def _generate_key(algorithm: Algorithm) -> SigningKey:
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if algorithm == "RS256":
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
    public_der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(hashlib.sha256(public_der).hexdigest()[:16], algorithm, jwk.construct(private_pem, algorithm))


def _read_token_request(content_type: str, body: bytes) -> TokenRequest:
    if content_type.partition(";")[0].strip().lower() == "application/json":
        return msgspec.json.decode(body, type=TokenRequest)
    form = parse_qs(body.decode("utf-8"), strict_parsing=True)
    fields = {name: values if name == "groups" else values[-1] for name, values in form.items()}
    return msgspec.convert(fields, TokenRequest, strict=False)


async def _serve_until_cancelled(server: Server, listener: socket.socket) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.stop()
        await serving
        raise

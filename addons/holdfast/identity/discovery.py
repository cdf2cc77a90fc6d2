"""Where an issuer's JWKS document comes from: OIDC discovery over HTTPS, or a file.

OpenID Connect Discovery 1.0, sections 4 and 4.3: the metadata is at a fixed path under the issuer's URL, and the
`issuer` in it must be that URL, letter for letter. Every failure is a ConfigurationError of one sentence that
names the issuer and the cause. A document is bounded in size, a fetch in time, and every step is HTTPS.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from holdfast.certificates import find_certificate_error
from holdfast.clients import NEARBY
from holdfast.errors import ConfigurationError
from holdfast.identity.serialization import parse_object

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.settings.identity import Issuer

METADATA_PATH = "/.well-known/openid-configuration"
MAX_DOCUMENT_BYTES = 1 << 20
TIMEOUT_SECONDS = 10
MAX_REDIRECTS = 3
TOO_MANY_REQUESTS = 429
MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, in the words of whoever asked: about a certificate that is not trusted; what has the issuer's URL."""

    trust: str
    url: str


SETTINGS = Advice("set certificateAuthority or certificateAuthorityFile to its CA", "url")


class IssuerDown(ConfigurationError):
    """An issuer does not answer, or says that it cannot now; as far as one sees, no setting would change that."""


class OtherName(ValueError):
    """The discovery document is that of an issuer of another name."""


class Unable(ValueError):
    """The server's own fault (RFC 9110 section 15.6), or too many requests."""


class UnreadableTrust(ValueError):
    """The file with the CA of an issuer's HTTPS cannot be read."""


type LoadDocument = Callable[[], Awaitable[bytes]]
"""Reads an issuer's JWKS document as it is now; raises ConfigurationError."""


def choose_loader(issuer: Issuer) -> LoadDocument:
    """The way to this issuer's JWKS document: its file or address where one is given, else discovery."""
    if issuer.jwks_file is not None:
        return partial(read_jwks_file, issuer.url, issuer.jwks_file)
    return partial(_fetch_aside, issuer)


async def _fetch_aside(issuer: Issuer) -> bytes:
    """`fetch_jwks` on a thread and a loop of its own.

    What arrives is taken apart without a pause until it has all been read: on the loop that the calls of all callers
    are on, one issuer that answers in chunks of a byte, or with hints without end, would hold up everybody. Nor may
    issuers that say nothing take the few threads that the database is asked on. The thread is waited for no longer than
    the fetch may take: it cannot end while the system looks for the issuer's name, which is not for us to bound.
    """
    thread = ThreadPoolExecutor(1, "holdfast-keys")
    try:
        with telling_faults(issuer.url):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(thread, lambda: asyncio.run(fetch_jwks(issuer)))
    finally:
        thread.shutdown(wait=False)


def metadata_url(issuer: Issuer) -> str:
    """Where the issuer's discovery document is, if it has one."""
    return issuer.discovery_url or issuer.url.rstrip("/") + METADATA_PATH


async def read_jwks_file(issuer_url: str, file: Path) -> bytes:
    """Read a JWKS file in a thread. Raises ConfigurationError."""
    try:
        return await asyncio.to_thread(_read_bounded, file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"issuer {issuer_url}: jwksFile {file} cannot be read: {reason}.") from error


async def fetch_jwks(issuer: Issuer) -> bytes:
    """Fetch the JWKS document: from `jwksURL`, else from where the issuer's metadata says.

    Raises IssuerDown, ConfigurationError.
    """
    with telling_faults(issuer.url):
        async with asyncio.timeout(TIMEOUT_SECONDS), await open_client(issuer) as client:
            if issuer.jwks_url is not None:
                return await fetch_document(client, issuer.jwks_url)
            metadata = await fetch_metadata(client, issuer)
            return await fetch_document(client, metadata["jwks_uri"])


async def fetch_metadata(client: httpx.AsyncClient, issuer: Issuer) -> Mapping[str, Any]:
    """Fetch the issuer's metadata, which names this issuer and an https:// `jwks_uri`; the rest is as it was sent.

    Raises ValueError and what httpx raises: call it inside `telling_faults`.
    """
    return _read_metadata(await fetch_document(client, metadata_url(issuer)), issuer.url)


async def open_client(issuer: Issuer) -> httpx.AsyncClient:
    """A client that speaks HTTPS only, follows a few redirects, and trusts what the issuer is to be verified with.

    Raises UnreadableTrust.
    """
    return httpx.AsyncClient(
        verify=await asyncio.to_thread(_open_trust, issuer),
        timeout=TIMEOUT_SECONDS,
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        event_hooks={"request": [_require_https]},
        mounts=NEARBY,
        # Uncompressed, so that the bound on what is read bounds what is held.
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


async def fetch_document(client: httpx.AsyncClient, url: str) -> bytes:
    """GET a document of at most 1 MiB. Raises ValueError and what httpx raises."""
    async with client.stream("GET", url) as response:
        require_able(response)
        if response.status_code != httpx.codes.OK:
            raise ValueError(f"{url} answered {response.status_code}, expected 200")
        return await read_bounded(response)


def require_able(response: httpx.Response) -> None:
    """Raises Unable when the server says that it cannot answer now."""
    if response.is_server_error or response.status_code == TOO_MANY_REQUESTS:
        raise Unable(f"{response.request.url} answered {response.status_code}, expected 200")


async def read_bounded(response: httpx.Response) -> bytes:
    """The body of a response that is being streamed. Raises ValueError when it is longer than 1 MiB."""
    document = b""
    async for chunk in response.aiter_raw():
        document += chunk
        if len(document) > MAX_DOCUMENT_BYTES:
            raise ValueError(f"{response.url.copy_with(query=None)} is longer than 1 MiB")
    return document


@contextmanager
def telling_faults(issuer_url: str, advice: Advice = SETTINGS) -> Iterator[None]:
    """What goes wrong inside becomes IssuerDown or ConfigurationError, in a sentence that names the issuer."""
    try:
        yield
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        fault = IssuerDown if _is_down(error) else ConfigurationError
        raise fault(f"issuer {issuer_url}: {_explain(error, advice)}.") from error


def _read_bounded(file: Path) -> bytes:
    with file.open("rb") as stream:
        document = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ValueError("it is longer than 1 MiB")
    return document


def _open_trust(issuer: Issuer) -> ssl.SSLContext:
    """What the issuer's HTTPS is verified with. Blocking. Raises UnreadableTrust."""
    file = issuer.certificate_authority_file
    try:
        return ssl.create_default_context(cafile=file, cadata=issuer.certificate_authority or None)
    except ssl.SSLError as error:
        raise UnreadableTrust(f"its CA {file} holds no certificate in PEM") from error
    except OSError as error:
        raise UnreadableTrust(f"its CA {file} cannot be read: {error.strerror}") from error


async def _require_https(request: httpx.Request) -> None:
    """Look at every request before it is sent, those that follow a redirect too."""
    url = request.url
    if url.scheme != "https" or not url.host or (url.port or 443) > MAX_PORT:
        raise httpx.UnsupportedProtocol(f"{_show(str(url))} is no https:// address")


def _read_metadata(document: bytes, issuer_url: str) -> Mapping[str, Any]:
    try:
        metadata = parse_object(document)
    except ValueError as error:
        raise ValueError(f"its discovery document cannot be read: {error}") from error
    named, jwks_uri = metadata.get("issuer"), metadata.get("jwks_uri")
    if named != issuer_url:
        raise OtherName(f"its discovery document names the issuer {_show(named)}")
    if not isinstance(jwks_uri, str) or not jwks_uri.startswith("https://"):
        raise ValueError(f"its discovery document names the jwks_uri {_show(jwks_uri)}, expected https://")
    return metadata


def _is_down(error: Exception) -> bool:
    if isinstance(error, (ValueError, httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects)):
        return isinstance(error, Unable)
    return find_certificate_error(error) is None


def _show(value: object) -> str:
    return f"{value!r:.200}"


def _explain(error: Exception, advice: Advice) -> str:
    certificate = find_certificate_error(error)
    if certificate is not None:
        return f"its certificate is not trusted ({certificate.verify_message}); {advice.trust}"
    if isinstance(error, (TimeoutError, httpx.TimeoutException)):
        return f"did not answer within {TIMEOUT_SECONDS} s; check the address and the network"
    if isinstance(error, UnreadableTrust):
        return f"{error}; {advice.trust}"
    if isinstance(error, OtherName):
        return f"{error}; {advice.url} must be exactly that"
    if isinstance(error, ValueError):
        return str(error)
    return f"cannot be reached ({error}); check the address and the network"

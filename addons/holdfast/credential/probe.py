"""Whether the API server can be reached, is the right one, and obeys our credential: asked before any traffic.

`GET /version` may be open to anyone, and a client certificate that the API server does not know makes the
caller anonymous instead of refused. So a SelfSubjectReview follows (authentication.k8s.io/v1, KEP-3325), which
names who the API server takes us for. A 403 there is fine: it knew us, and only keeps the answer to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from holdfast.certificates import find_certificate_error
from holdfast.credential.rights import access_review
from holdfast.credential.sources import client_context
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from holdfast.credential.rights import Right
    from holdfast.credential.sources import CredentialSource

TIMEOUT_SECONDS = 10
ANONYMOUS = "system:anonymous"
REVIEW_PATH = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ACCESS_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
UNKNOWN_VERSION = "unknown version"

# OpenSSL's X509_V_ERR_* (openssl/x509_vfy.h).
_EXPIRED = 10
_OTHER_NAME = frozenset({62, 64})


async def probe_upstream(source: CredentialSource) -> str:
    """Return the API server's version, or `unknown version` when it does not tell.

    Raises ConfigurationError, one sentence, when it cannot be reached, its certificate is not trusted or carries
    other names, it is no Kubernetes API server, or it does not accept the credential.
    """
    try:
        async with _open_client(source) as client:
            version = _read_version(source, await _ask(client, source, "GET", "/version"))
            review = await _ask(client, source, "POST", REVIEW_PATH, REVIEW)
    except (httpx.HTTPError, OSError) as error:
        raise ConfigurationError(f"upstream {source.target.url}: {_explain(error, source)}.") from error
    _require_known(source, review)
    return version


async def find_lacking_rights(source: CredentialSource, rights: Sequence[Right]) -> list[Right]:
    """Those of `rights` that the API server says the credential does not have.

    Raises ConfigurationError, one sentence, when it does not tell.
    """
    try:
        async with _open_client(source) as client:
            return [right for right in rights if not await _may(client, source, right)]
    except (httpx.HTTPError, OSError) as error:
        raise ConfigurationError(f"upstream {source.target.url}: {_explain(error, source)}.") from error


async def _may(client: httpx.AsyncClient, source: CredentialSource, right: Right) -> bool:
    response = await _ask(client, source, "POST", ACCESS_PATH, access_review(right))
    match _read_object(response):
        case {"status": {"allowed": bool(allowed)}}:
            return allowed
    raise ConfigurationError(
        f"upstream {source.target.url}: answered {response.status_code} when asked what the gateway may do; let its "
        "credential create selfsubjectaccessreviews (ClusterRole system:basic-user)."
    )


def _open_client(source: CredentialSource) -> httpx.AsyncClient:
    token = source.current().token
    return httpx.AsyncClient(
        base_url=source.target.url,
        verify=client_context(source),
        timeout=TIMEOUT_SECONDS,
        trust_env=False,
        headers={"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {}),
    )


async def _ask(
    client: httpx.AsyncClient, source: CredentialSource, method: str, path: str, body: object = None
) -> httpx.Response:
    response = await client.request(method, path, json=body, extensions={"sni_hostname": source.target.server_name})
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise _refused(source)
    return response


def _read_version(source: CredentialSource, response: httpx.Response) -> str:
    if response.status_code == httpx.codes.FORBIDDEN:
        return UNKNOWN_VERSION
    version = _read_object(response).get("gitVersion")
    if response.status_code != httpx.codes.OK or not isinstance(version, str):
        raise ConfigurationError(
            f"upstream {source.target.url}: answered {response.status_code} to GET /version, which is not how a "
            "Kubernetes API server answers; check the address."
        )
    return version


def _require_known(source: CredentialSource, response: httpx.Response) -> None:
    """Refuse to be anonymous: seen as the reviewed user, or as whom the API server's refusal speaks of."""
    answer = _read_object(response)
    match answer:
        case {"status": {"userInfo": {"username": str(username)}}}:
            is_anonymous = username == ANONYMOUS
        case {"message": str(message)}:
            is_anonymous = response.status_code == httpx.codes.FORBIDDEN and f'"{ANONYMOUS}"' in message
        case _:
            is_anonymous = False
    if is_anonymous:
        raise _refused(source)


def _read_object(response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _refused(source: CredentialSource) -> ConfigurationError:
    kind, again = (
        ("token", "make a new one (kubectl create token)")
        if source.current().token
        else ("client certificate", "give one that its client CA signed")
    )
    return ConfigurationError(
        f"upstream {source.target.url}: does not accept the gateway's {kind}: expired, revoked, or of another "
        f"cluster; {again}."
    )


def _explain(error: Exception, source: CredentialSource) -> str:
    certificate = find_certificate_error(error)
    if certificate is not None:
        return _explain_certificate(certificate, source)
    if isinstance(error, httpx.TimeoutException):
        return f"did not answer within {TIMEOUT_SECONDS} s; check the address and the network"
    return f"cannot be reached ({error or type(error).__name__}); check the address and the network"


def _explain_certificate(error: ssl.SSLCertVerificationError, source: CredentialSource) -> str:
    if error.verify_code in _OTHER_NAME:
        return f"its certificate is not for {source.target.server_name}; use a name that it carries"
    if error.verify_code == _EXPIRED:
        return "its certificate has expired; renew it"
    return f"its certificate is not trusted ({error.verify_message}); give the CA that signs it"

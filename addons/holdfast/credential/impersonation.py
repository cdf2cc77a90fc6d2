"""Who asks, in the words of Kubernetes' user impersonation: the headers that go upstream beside the credential.

With `upstream.impersonate` the API server sees each caller as themselves, so RBAC, its audit log and admission
apply to them and not to the gateway. The names are those of the API server's filter (k8s.io/apiserver
`pkg/endpoints/filters/impersonation`), the spelling is client-go's (`transport/round_trippers.go`):

    Impersonate-User       the user name
    Impersonate-Group      one field for each group, and one for system:authenticated; a comma is part of a name
    Impersonate-Uid        the uid, where there is one
    Impersonate-Extra-KEY  one field for each value; bytes of KEY that no header name may have are %XX

Values are sent as UTF-8 and nothing decodes them. Servers trim white space around values and read an empty user as
nobody, which would leave the gateway itself asking: values that would not arrive as they are end the call. Extra
has two keys of our own, `holdfast.dev/issuer` and `holdfast.dev/run-id`: the first of the claims `run_id`
(GitHub Actions), `pipeline_id` (GitLab) and `job_id` (Buildkite) that the token has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holdfast.exchange import Identity

AUTHENTICATED = "system:authenticated"
ISSUER_KEY = "holdfast.dev/issuer"
RUN_KEY = "holdfast.dev/run-id"
RUN_CLAIMS = ("run_id", "pipeline_id", "job_id")
MAX_BYTES = 16 << 10
"""Of all fields together, as HTTP/1.1 writes them."""

_NAME_BYTES = frozenset(b"!#$&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
"""Of RFC 9110's token, without `%`, and without capital letters, which the API server makes small."""


def impersonation_fields(identity: Identity) -> tuple[tuple[bytes, bytes], ...]:
    """The header fields that make the API server take a call as this identity's; names in lower case.

    Raises Forbidden when a value would not arrive as it is, or all are more than `MAX_BYTES`; no message has a value.
    """
    fields = tuple(_fields(identity))
    size = sum(len(name) + len(value) + len(": \r\n") for name, value in fields)
    if size > MAX_BYTES:
        raise Forbidden(
            f"the API server cannot be told who you are: {len(identity.groups)} groups and what else your token says "
            f"make {size} bytes of headers, and at most {MAX_BYTES} are sent; have its issuer list fewer groups."
        )
    return fields


def _fields(identity: Identity) -> Iterator[tuple[bytes, bytes]]:
    yield b"impersonate-user", _encode(identity.username, "user name")
    for group in identity.groups:
        yield b"impersonate-group", _encode(group, "group")
    if AUTHENTICATED not in identity.groups:
        yield b"impersonate-group", AUTHENTICATED.encode()
    if identity.uid:
        yield b"impersonate-uid", _encode(identity.uid, "uid")
    for key, values in _extra(identity).items():
        name = b"impersonate-extra-" + _escape(key)
        for value in values:
            yield name, _encode(value, f"value for {key}")


def _extra(identity: Identity) -> Mapping[str, tuple[str, ...]]:
    """The identity's own, and ours over it."""
    ours = {ISSUER_KEY: (identity.issuer,)}
    run = next(filter(None, (_read_run(identity.claims.get(claim)) for claim in RUN_CLAIMS)), "")
    if run:
        ours[RUN_KEY] = (run,)
    return {**identity.extra, **ours}


def _read_run(claim: object) -> str:
    is_number = isinstance(claim, int) and not isinstance(claim, bool)
    return str(claim) if is_number or isinstance(claim, str) else ""


def _encode(value: str, what: str) -> bytes:
    """The value in UTF-8, as Go's clients send it. `isprintable` knows lone surrogates and every control character."""
    if not value or value != value.strip() or not value.isprintable():
        raise Forbidden(
            f"the API server cannot be told who you are: a {what} of your token is empty, begins or ends with a space, "
            "or has a character that no header can carry; have its issuer give another."
        )
    return value.encode()


def _escape(key: str) -> bytes:
    """The key as part of a header's name."""
    return b"".join(b"%c" % byte if byte in _NAME_BYTES else b"%%%02x" % byte for byte in key.encode())

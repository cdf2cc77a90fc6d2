"""What an identity provider that is not ours signs: the npm packages samlp 8.0.0 and saml 4.0.0 (xml-crypto).

Each file is what samlp's express middleware sent for the address that `redirect_url` makes with the request ID
`_request-1`, so the request was one that it reads, and it took the address to answer from there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.errors import Unauthorized
from holdfast.identity.saml.mapping import map_identity
from holdfast.identity.saml.response import verify_response
from identity.saml.forging import IDP, trusting

VECTORS = Path(__file__).parent / "vectors"
THEN = 1_795_868_920
"""2026-11-28T12:28:40Z, within their five minutes."""

CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
PROVIDER = trusting(
    certificates=(VECTORS / "samlp.pem").read_text(),
    mappings={
        "username": {"attribute": f"{CLAIMS}emailaddress", "prefix": "saml:"},
        "groups": {"attribute": "http://schemas.passportjs.com/groups", "prefix": "saml:"},
        "uid": {"attribute": f"{CLAIMS}nameidentifier"},
    },
)


@pytest.mark.parametrize("signed", ["assertion", "response", "both"])
def test_it_is_believed(signed: str) -> None:
    document = (VECTORS / f"samlp-{signed}-signed.xml").read_bytes()
    identity = verify_response(document, PROVIDER, "_request-1", THEN)
    assert (identity.issuer, identity.name_id, identity.in_response_to) == (IDP, "ada", "_request-1")
    assert THEN < identity.not_on_or_after < THEN + 300
    user = map_identity(identity, PROVIDER)
    assert (user.username, user.groups, user.uid) == ("saml:ada@example.com", ("saml:dev", "saml:ops"), "ada")


@pytest.mark.parametrize(("name", "why"), [("samlp-sha1", "alg_not_allowed"), ("samlp-encrypted", "encrypted")])
def test_it_is_refused(name: str, why: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        verify_response((VECTORS / f"{name}.xml").read_bytes(), PROVIDER, "_request-1", THEN)
    assert refusal.value.why == why

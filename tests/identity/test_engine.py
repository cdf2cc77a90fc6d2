"""Every algorithm: what another library signs is verified, with the key and the algorithm that it was signed for."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from joserfc import jwk, jws

from holdfast.errors import Unauthorized
from holdfast.identity.keys import KeySet, parse_key_set
from holdfast.identity.token import parse_token, verify_token
from holdfast.settings.identity import Algorithm
from identity.forging import ISSUER, NOW, trusting

EVERY = get_args(Algorithm.__value__)
TRUSTED = trusting(ISSUER.model_copy(update={"algorithms": EVERY}))
CLAIMS = {"iss": ISSUER.url, "sub": "ada", "aud": "holdfast", "iat": NOW, "exp": NOW + 600}
SIGNERS: dict[str, Any] = {
    **{name: jwk.RSAKey.generate_key(2048) for name in EVERY if name[:2] in {"RS", "PS"}},
    "ES256": jwk.ECKey.generate_key("P-256"),
    "ES384": jwk.ECKey.generate_key("P-384"),
    "ES512": jwk.ECKey.generate_key("P-521"),
    "EdDSA": jwk.OKPKey.generate_key("Ed25519"),
}


def sign(algorithm: str, key: Any, **header: str) -> str:
    protected = {"alg": algorithm, "kid": algorithm, **header}
    return jws.serialize_compact(protected, json.dumps(CLAIMS).encode(), key, algorithms=[algorithm])


def publish(*names: str) -> KeySet:
    members = [{**SIGNERS[name].as_dict(private=False), "kid": name, "alg": name} for name in names]
    return parse_key_set(json.dumps({"keys": members}).encode(), EVERY)


def why(token: str, keys: KeySet) -> str:
    with pytest.raises(Unauthorized) as refusal:
        verify_token(parse_token(token), TRUSTED, keys, NOW)
    return refusal.value.why


@pytest.mark.parametrize("algorithm", EVERY)
def test_what_another_library_signs_is_verified(algorithm: str) -> None:
    keys = publish(*EVERY)
    assert verify_token(parse_token(sign(algorithm, SIGNERS[algorithm])), TRUSTED, keys, NOW).username == "ada"


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_signature_with_one_bit_changed_is_refused(algorithm: str) -> None:
    token = sign(algorithm, SIGNERS[algorithm])
    head, payload, signature = token.split(".")
    other = "A" if signature[5] != "A" else "B"
    assert why(f"{head}.{payload}.{signature[:5]}{other}{signature[6:]}", publish(*EVERY)) == "bad_signature"


@pytest.mark.parametrize("algorithm", EVERY)
def test_another_key_of_the_same_kind_is_refused(algorithm: str) -> None:
    stranger = type(SIGNERS[algorithm]).generate_key(
        {"RS": 2048, "PS": 2048, "ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}.get(
            algorithm, 2048
        )
    )
    assert why(sign(algorithm, stranger), publish(*EVERY)) == "bad_signature"


@pytest.mark.parametrize("algorithm", EVERY)
@pytest.mark.parametrize("other", EVERY)
def test_a_key_verifies_for_its_own_algorithm_only(algorithm: str, other: str) -> None:
    if algorithm == other:
        return
    signer = SIGNERS[other]
    token = sign(other, signer, kid=algorithm)
    assert why(token, publish(algorithm)) == "unknown_key"


def test_pss_with_another_salt_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.hashes import SHA256

    from identity.forging import encode

    head = encode(json.dumps({"alg": "PS256", "kid": "PS256"}).encode())
    message = f"{head}.{encode(json.dumps(CLAIMS).encode())}"
    key = SIGNERS["PS256"].private_key
    loose = key.sign(message.encode(), padding.PSS(padding.MGF1(SHA256()), 8), SHA256())
    assert why(f"{message}.{encode(loose)}", publish("PS256")) == "bad_signature"

"""Which members of a JWKS become keys."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from holdfast.identity.keys import KeySet, parse_key_set
from holdfast.settings.identity import Algorithm
from identity.forging import ALGORITHMS, EC_1, RSA_1, RSA_2, encode, encode_integer, okp_jwk, public_jwk

GOOD = public_jwk(EC_1, kid="good")
SMALL_RSA = rsa.generate_private_key(65537, 1024)  # noqa: S505
P384 = ec.generate_private_key(ec.SECP384R1())


def parse(*members: object, algorithms: tuple[str, ...] = ALGORITHMS) -> KeySet:
    return parse_key_set(json.dumps({"keys": members}).encode(), algorithms)


def off_the_curve() -> dict[str, str]:
    return public_jwk(EC_1, y=encode_integer(EC_1.public_key().public_numbers().y ^ 1, 32))


USABLE = {
    "EC on P-256": (public_jwk(EC_1, kid="k"), ("k", "ES256")),
    "RSA of 2048 bits": (public_jwk(RSA_1, kid="k"), ("k", "RS256")),
    "without kid": (public_jwk(EC_1), ("", "ES256")),
    "for signatures": (public_jwk(EC_1, kid="k", use="sig", alg="ES256", key_ops=["verify"]), ("k", "ES256")),
    "for SPIFFE's JWT": (public_jwk(EC_1, kid="k", use="jwt-svid"), ("k", "ES256")),
    "with a certificate": (public_jwk(EC_1, kid="k", x5c=["MIIB"], x5t="x"), ("k", "ES256")),
}

P521 = ec.generate_private_key(ec.SECP521R1())
ED = ed25519.Ed25519PrivateKey.generate()
EVERY = get_args(Algorithm.__value__)
RSA_NAMES = {name for name in EVERY if name[:2] in {"RS", "PS"}}

BOUND = {
    "RSA without alg": (public_jwk(RSA_1), RSA_NAMES),
    "RSA for PS512": (public_jwk(RSA_1, alg="PS512"), {"PS512"}),
    "RSA for RS384": (public_jwk(RSA_1, alg="RS384"), {"RS384"}),
    "P-256": (public_jwk(EC_1), {"ES256"}),
    "P-384": (public_jwk(P384), {"ES384"}),
    "P-384 for ES384": (public_jwk(P384, alg="ES384"), {"ES384"}),
    "P-521": (public_jwk(P521), {"ES512"}),
    "Ed25519": (okp_jwk(ED), {"EdDSA"}),
    "Ed25519 for EdDSA": (okp_jwk(ED, alg="EdDSA"), {"EdDSA"}),
    "P-256 for ES384": (public_jwk(EC_1, alg="ES384"), set()),
    "P-384 with short coordinates": (public_jwk(P384, x=encode(b"1" * 32), y=encode(b"1" * 32)), set()),
    "Ed25519 for ES256": (okp_jwk(ED, alg="ES256"), set()),
    "Ed25519 of 31 bytes": ({"kty": "OKP", "crv": "Ed25519", "x": encode(b"1" * 31)}, set()),
    "Ed25519 private": (okp_jwk(ED, d=encode(b"1" * 32)), set()),
    "X25519": ({"kty": "OKP", "crv": "X25519", "x": encode(b"1" * 32)}, set()),
    "Ed448": ({"kty": "OKP", "crv": "Ed448", "x": encode(b"1" * 57)}, set()),
    "secp256k1": (public_jwk(EC_1, crv="secp256k1"), set()),
}

UNUSABLE = {
    "for SPIFFE's X.509": public_jwk(EC_1, use="x509-svid"),
    "use a list": public_jwk(EC_1, use=["sig"]),
    "for encryption": public_jwk(RSA_1, use="enc"),
    "for signing only": public_jwk(RSA_1, key_ops=["sign"]),
    "key_ops empty": public_jwk(RSA_1, key_ops=[]),
    "key_ops a string": public_jwk(RSA_1, key_ops="verify"),
    "RSA for another algorithm": public_jwk(RSA_1, alg="RS512"),
    "RSA said to be for ES256": public_jwk(RSA_1, alg="ES256"),
    "EC said to be for RS256": public_jwk(EC_1, alg="RS256"),
    "EC said to be for HS256": public_jwk(EC_1, alg="HS256"),
    "alg a list": public_jwk(EC_1, alg=["ES256"]),
    "alg an object": public_jwk(EC_1, alg={}),
    "alg a list of objects": public_jwk(EC_1, alg=[{}]),
    "RSA of 1024 bits": public_jwk(SMALL_RSA),
    "RSA of 65536 bits": public_jwk(RSA_1, n=encode(b"\xff" * 8192)),
    "RSA with an even exponent": public_jwk(RSA_1, e=encode(b"\x04")),
    "RSA with exponent one": public_jwk(RSA_1, e=encode(b"\x01")),
    "RSA without a modulus": {**public_jwk(RSA_1), "n": None},
    "RSA with a padded modulus": public_jwk(RSA_1, n=public_jwk(RSA_1)["n"] + "=="),
    "EC on P-384": public_jwk(P384),
    "EC on P-384 said to be P-256": public_jwk(P384, crv="P-256"),
    "EC off the curve": off_the_curve(),
    "EC at infinity": public_jwk(EC_1, x=encode(bytes(32)), y=encode(bytes(32))),
    "EC with a long coordinate": public_jwk(EC_1, x=encode(b"\0" + bytes(32))),
    "EC without y": {**public_jwk(EC_1), "y": None},
    "symmetric": {"kty": "oct", "k": encode(b"secret"), "kid": "k"},
    "symmetric dressed as EC": public_jwk(EC_1, k=encode(b"secret")),
    "EC private": public_jwk(EC_1, d=encode(b"\1" * 32)),
    "RSA private": public_jwk(RSA_1, d=encode(b"\1" * 256)),
    "Ed25519": {"kty": "OKP", "crv": "Ed25519", "x": encode(bytes(32))},
    "unknown kty": {"kty": "XYZ"},
    "kty absent": {"kid": "k"},
    "kty a list": {"kty": ["EC"], "crv": "P-256"},
    "kid a number": public_jwk(EC_1, kid=1),
    "kid a list": public_jwk(EC_1, kid=["k"]),
    "a string": "key",
    "null": None,
    "a list": [],
}


@pytest.mark.parametrize(("member", "name"), USABLE.values(), ids=USABLE)
def test_a_good_key_is_bound_to_its_name_and_algorithm(member, name):
    assert list(parse(member).keys) == [name]


@pytest.mark.parametrize("member", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_key_is_left_out_and_the_others_stay(member):
    keys = parse(member, GOOD)
    assert list(keys.keys) == [("good", "ES256")]
    assert len(keys.unusable) == 1


@pytest.mark.parametrize(("member", "names"), BOUND.values(), ids=BOUND)
def test_a_key_is_for_the_algorithms_of_its_kind_and_no_others(member, names):
    assert {name for _, name in parse(member, algorithms=EVERY).keys} == names


def test_a_key_without_alg_is_for_no_algorithm_that_its_issuer_may_not_use():
    assert {name for _, name in parse(public_jwk(RSA_1), algorithms=("PS256", "ES256")).keys} == {"PS256"}


def test_a_key_for_an_algorithm_that_is_not_accepted_is_left_out():
    assert list(parse(GOOD, public_jwk(RSA_1, kid="r"), algorithms=("RS256",)).keys) == [("r", "RS256")]


def test_a_name_for_two_keys_names_none():
    keys = parse(public_jwk(RSA_1, kid="k"), public_jwk(RSA_2, kid="k"), GOOD)
    assert list(keys.keys) == [("good", "ES256")]
    assert keys.unusable == ("kid 'k': names several keys",)


def test_a_key_listed_twice_is_one_key():
    assert list(parse(GOOD, GOOD).keys) == [("good", "ES256")]


def test_one_name_may_be_for_two_algorithms():
    keys = parse(public_jwk(RSA_1, kid="k"), public_jwk(EC_1, kid="k"))
    assert keys.find("RS256", "k") is not keys.find("ES256", "k")


def test_a_key_is_found_by_name_and_algorithm_only():
    keys = parse(GOOD)
    assert keys.find("ES256", "good") is not None
    assert keys.find("RS256", "good") is None
    assert keys.find("ES256", "other") is None


def test_without_a_name_only_the_only_key_is_found():
    keys = parse(GOOD, public_jwk(RSA_1, kid="a"), public_jwk(RSA_2, kid="b"))
    assert keys.find("ES256", None) is keys.find("ES256", "good")
    assert keys.find("RS256", None) is None


def test_a_key_without_a_name_is_not_found_by_one():
    assert parse(public_jwk(EC_1)).find("ES256", "k") is None


def test_sets_are_equal_when_their_keys_are():
    other = public_jwk(RSA_1, kid="r")
    assert parse(GOOD, other) == parse(other, {"kty": "XYZ"}, GOOD)
    assert parse(GOOD) != parse(other)
    assert parse(GOOD) != parse({**GOOD, "kid": "renamed"})


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b'{"keys": [], "keys": []}', b"\xff"]
)
def test_what_is_no_jwks_is_a_value_error(document):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_key_set(document, ALGORITHMS)


MEMBER_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.integers(-9, 9),
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.lists(st.sampled_from(["verify", "sign"]), max_size=2),
    ),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.sampled_from(["alg", "kid"]), values, max_size=2),
    max_leaves=4,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops", "d"]), MEMBER_VALUES
)


@given(MEMBERS, st.sampled_from([{}, public_jwk(EC_1), public_jwk(RSA_1)]))
def test_no_member_breaks_the_set(changes, base):
    assert ("good", "ES256") in parse({**base, **changes}, {**GOOD, "alg": "ES256"}).keys or changes.get(
        "kid"
    ) == "good"

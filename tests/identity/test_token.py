"""Which tokens become an Identity, and with which reason code the others are refused."""

from __future__ import annotations

import base64
import json
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws as joserfc_jws
from joserfc.errors import JoseError
from joserfc.jwk import KeySet as JoserfcKeySet

from holdfast.errors import Unauthorized
from holdfast.identity.keys import parse_key_set
from holdfast.identity.token import LEEWAY_SECONDS, MAX_TOKEN_BYTES, NOT_VALID, parse_token, verify_token
from identity.forging import (
    ALGORITHMS,
    DROPPED,
    EC_1,
    ISSUER,
    JWKS,
    KEYS,
    NOW,
    RSA_1,
    RSA_2,
    STRANGER_EC,
    STRANGER_RSA,
    claiming,
    claims_with,
    encode,
    header_with,
    heading,
    public_jwk,
    public_pem,
    seal,
    sign,
    trusting,
)

if TYPE_CHECKING:
    from holdfast.exchange import Identity
    from holdfast.identity.mapping import UserMapper

TRUSTED = trusting()
GOOD = claiming()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


def verify(text: str, mapper: UserMapper = TRUSTED, keys=KEYS, now: float = NOW) -> Identity:
    return verify_token(parse_token(text), mapper, keys, now)


def unsigned(header: bytes) -> str:
    return f"{encode(header)}.{PAYLOAD}."


def with_stray_bits(segment: str) -> str:
    """Another spelling of the same bytes: the last character's unused low bits are set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    spelled = segment[:-1] + alphabet[alphabet.index(segment[-1]) + 1]
    decoded = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in (segment, spelled)]
    assert decoded[0] == decoded[1]
    return spelled


def nested(depth: int) -> bytes:
    return claims_with()[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"


def raw_claim(text: str) -> str:
    """A well signed token whose claims end in this raw JSON member."""
    return seal(header_with(), claims_with(exp=DROPPED)[:-1] + f", {text}}}".encode())


def padded_to(size: int) -> str:
    """A well signed token of just over `size` characters."""
    return claiming(filler="x" * (size * 3 // 4))


RSA_HEADER = header_with(alg="RS256", kid="rsa-1")

ACCEPTED = {
    "ES256": GOOD,
    "RS256": seal(RSA_HEADER, claims_with(), RSA_1),
    "RS256 with the second RSA key": seal(header_with(alg="RS256", kid="rsa-2"), claims_with(), RSA_2),
    "no kid, one key of that algorithm": heading(kid=DROPPED),
    "typ absent": heading(typ=DROPPED),
    "typ in lower case": heading(typ="jwt"),
    "typ of an access token": heading(typ="at+jwt"),
    "typ of an access token in odd case": heading(typ="AT+JWT"),
    "certificate thumbprints": heading(**{"x5t": "abc", "x5t#S256": "def"}),
    "aud as a list": claiming(aud=["other", "holdfast"]),
    "the other configured aud": claiming(aud="holdfast-ci"),
    "exp in one second": claiming(exp=NOW + 1),
    "iat at the leeway": claiming(iat=NOW + LEEWAY_SECONDS),
    "nbf at the leeway": claiming(nbf=NOW + LEEWAY_SECONDS),
    "nbf in the past": claiming(nbf=NOW - 60),
    "iat absent": claiming(iat=DROPPED),
    "lifetime at the maximum": claiming(exp=NOW + 3600),
    "groups absent": claiming(groups=DROPPED),
    "groups empty": claiming(groups=[]),
    "groups as one string": claiming(groups="dev"),
    "a space in a name": claiming(sub="Ada Lovelace"),
    "a name beyond ASCII": claiming(sub="Zoë"),
    "a name of 256 characters": claiming(sub="a" * 256),
    "system without the colon": claiming(sub="systematic"),
    "system: further in": claiming(sub="my-system:admin"),
    "brackets in a string": claiming(note="[" * 100),
    "escaped quotes before brackets": claiming(note='\\"' + "{[" * 50),
    "whitespace inside the JSON": seal(header_with(), claims_with().replace(b", ", b" ,\n\t")),
    "depth at the bound": seal(header_with(), nested(15)),
    "the largest integer": claiming(n=2**53 - 1),
    "a fraction in another claim": claiming(score=0.5),
    "email_verified beside sub": claiming(email_verified=False),
}

REFUSED = {
    # algorithms and keys
    "alg none": ("alg_not_allowed", heading(alg="none")),
    "alg none, no signature": ("malformed", unsigned(header_with(alg="none", kid=DROPPED))),
    "alg None": ("alg_not_allowed", heading(alg="None")),
    "alg nOnE": ("alg_not_allowed", heading(alg="nOnE")),
    "alg empty": ("malformed", heading(alg="")),
    "alg absent": ("malformed", heading(alg=DROPPED)),
    "alg a list": ("malformed", heading(alg=["ES256"])),
    "alg null": ("malformed", heading(alg=None)),
    "alg in lower case": ("alg_not_allowed", heading(alg="es256")),
    "alg with a space": ("alg_not_allowed", heading(alg="ES256 ")),
    "HS256 with the public PEM": ("alg_not_allowed", heading(public_pem(EC_1), alg="HS256")),
    "HS256 with the public RSA PEM": ("alg_not_allowed", heading(public_pem(RSA_1), alg="HS256", kid="rsa-1")),
    "HS256 with an empty secret": ("alg_not_allowed", heading(b"", alg="HS256")),
    "RS512, not configured": ("alg_not_allowed", heading(RSA_1, alg="RS512", kid="rsa-1")),
    "ES384, not configured": ("alg_not_allowed", heading(alg="ES384")),
    "PS256, not configured": ("alg_not_allowed", heading(RSA_1, alg="PS256", kid="rsa-1")),
    "EdDSA, not configured": ("alg_not_allowed", heading(alg="EdDSA")),
    "RS256 with an EC kid": ("unknown_key", heading(RSA_1, alg="RS256", kid="ec-1")),
    "ES256 with an RSA kid": ("unknown_key", heading(kid="rsa-1")),
    "ES256 header, RSA signature": ("bad_signature", heading(RSA_1)),
    "RS256 header, EC signature": ("bad_signature", heading(EC_1, alg="RS256", kid="rsa-1")),
    "RS256 header, HMAC of the PEM": ("bad_signature", heading(public_pem(RSA_1), alg="RS256", kid="rsa-1")),
    "kid of another key": ("bad_signature", heading(RSA_2, alg="RS256", kid="rsa-1")),
    "unknown kid": ("unknown_key", heading(kid="ec-2")),
    "no kid, several keys of that algorithm": ("unknown_key", heading(RSA_1, alg="RS256", kid=DROPPED)),
    "no kid, signed by a stranger": ("bad_signature", heading(STRANGER_EC, kid=DROPPED)),
    "kid empty": ("malformed", heading(kid="")),
    "kid null": ("malformed", heading(kid=None)),
    "kid a number": ("malformed", heading(kid=1)),
    "kid a path": ("unknown_key", heading(b"", kid="../../../dev/null")),
    "signed by a stranger (EC)": ("bad_signature", heading(STRANGER_EC)),
    "signed by a stranger (RSA)": ("bad_signature", heading(STRANGER_RSA, alg="RS256", kid="rsa-1")),
    "signature of all zeros": ("bad_signature", f"{HEADER}.{PAYLOAD}.{encode(bytes(64))}"),
    "signature too short": ("bad_signature", f"{HEADER}.{PAYLOAD}.{encode(bytes(8))}"),
    "signature of another token": ("bad_signature", f"{HEADER}.{PAYLOAD}.{claiming(sub='bob').split('.')[2]}"),
    "payload of another token": ("bad_signature", f"{HEADER}.{encode(claims_with(sub='root'))}.{SIGNATURE}"),
    # header parameters
    "embedded jwk": ("header_not_allowed", heading(STRANGER_EC, jwk=public_jwk(STRANGER_EC))),
    "jku": ("header_not_allowed", heading(STRANGER_EC, jku="https://evil.example/jwks")),
    "x5u": ("header_not_allowed", heading(STRANGER_EC, x5u="https://evil.example/cert")),
    "x5c": ("header_not_allowed", heading(STRANGER_EC, x5c=["MIIB"])),
    "crit": ("header_not_allowed", heading(crit=["exp"])),
    "crit empty": ("header_not_allowed", heading(crit=[])),
    "b64 false": ("header_not_allowed", heading(b64=False, crit=["b64"])),
    "zip": ("header_not_allowed", heading(zip="DEF")),
    "cty JWT": ("header_not_allowed", heading(cty="JWT")),
    "enc": ("header_not_allowed", heading(enc="A256GCM")),
    "unknown parameter": ("header_not_allowed", heading(**{"http://example": 1})),
    "ALG in upper case beside alg": ("header_not_allowed", heading(ALG="none")),
    "typ of a logout token": ("wrong_type", heading(typ="logout+jwt")),
    "typ of a DPoP proof": ("wrong_type", heading(typ="dpop+jwt")),
    "typ JOSE": ("wrong_type", heading(typ="JOSE")),
    "typ empty": ("malformed", heading(typ="")),
    "typ a number": ("malformed", heading(typ=7)),
    "nested token as payload": ("malformed", seal(header_with(), GOOD.encode())),
    # spelling
    "empty": ("malformed", ""),
    "one segment": ("malformed", HEADER),
    "two segments": ("malformed", f"{HEADER}.{PAYLOAD}"),
    "four segments": ("malformed", f"{GOOD}.{SIGNATURE}"),
    "five segments (JWE)": ("malformed", f"{GOOD}.{SIGNATURE}.{SIGNATURE}"),
    "empty header": ("malformed", f".{PAYLOAD}.{SIGNATURE}"),
    "empty payload": ("malformed", f"{HEADER}..{SIGNATURE}"),
    "empty signature": ("malformed", f"{HEADER}.{PAYLOAD}."),
    "only dots": ("malformed", ".."),
    "many dots": ("malformed", "." * 10_000),
    "JSON serialization": ("malformed", json.dumps({"protected": HEADER, "payload": PAYLOAD, "signature": SIGNATURE})),
    "padding on the signature": ("malformed", GOOD + "=="),
    "padding on the payload": ("malformed", f"{HEADER}.{PAYLOAD}=.{SIGNATURE}"),
    "stray bits in the signature": ("malformed", f"{HEADER}.{PAYLOAD}.{with_stray_bits(SIGNATURE)}"),
    "stray bits in a signed header": ("malformed", seal(with_stray_bits(encode(b'{"alg":"ES256"} ')), PAYLOAD)),
    "a newline at the end": ("malformed", GOOD + "\n"),
    "a space before": ("malformed", " " + GOOD),
    "a newline in the payload": ("malformed", f"{HEADER}.{PAYLOAD[:20]}\n{PAYLOAD[20:]}.{SIGNATURE}"),
    "the other base64 alphabet": ("malformed", f"{HEADER}.{PAYLOAD}.{'+/' * 43}"),
    "a letter beyond ASCII": ("malformed", GOOD + "é"),
    "a lone surrogate": ("malformed", GOOD + "\udc80"),
    "a NUL": ("malformed", GOOD + "\0"),
    "too large": ("too_large", padded_to(MAX_TOKEN_BYTES)),
    "far too large": ("too_large", "a" * 10_000_000),
    # JSON
    "duplicate alg": ("malformed", seal(b'{"alg":"none","alg":"ES256","kid":"ec-1"}', PAYLOAD)),
    "duplicate exp": ("malformed", raw_claim(f'"exp": 1, "exp": {NOW + 60}')),
    "duplicate exp, one escaped": ("malformed", raw_claim(f'"\\u0065xp": 1, "exp": {NOW + 60}')),
    "duplicate in a nested object": ("malformed", raw_claim(f'"exp": {NOW + 60}, "x": {{"a": 1, "a": 2}}')),
    "depth over the bound": ("malformed", seal(header_with(), nested(16))),
    "depth in the thousands": ("malformed", seal(header_with(), nested(5_000))),
    "depth in the header": ("malformed", seal(b'{"alg":"ES256","x":' + b'{"a":' * 1500 + b"1" + b"}" * 1501, PAYLOAD)),
    "brackets never closed": ("malformed", seal(header_with(), b"[" * 9_000)),
    "quotes never closed": ("malformed", seal(header_with(), b'{"' + b'\\"' * 4_000)),
    "NaN": ("malformed", raw_claim('"exp": NaN')),
    "Infinity": ("malformed", raw_claim('"exp": Infinity')),
    "-Infinity": ("malformed", raw_claim('"exp": -Infinity')),
    "a float that overflows": ("malformed", raw_claim('"exp": 1e999')),
    "an integer beyond 2**53": ("malformed", raw_claim('"exp": 9007199254740992')),
    "an integer of 5,000 digits": ("malformed", raw_claim('"exp": ' + "9" * 5_000)),
    "payload a list": ("malformed", seal(header_with(), b"[1]")),
    "payload a string": ("malformed", seal(header_with(), b'"x"')),
    "payload null": ("malformed", seal(header_with(), b"null")),
    "payload empty object": ("unknown_issuer", seal(header_with(), b"{}")),
    "payload not UTF-8": ("malformed", seal(header_with(), b'{"iss": "\xff"}')),
    "payload UTF-16": ("malformed", seal(header_with(), claims_with().decode().encode("utf-16"))),
    "payload with a byte order mark": ("malformed", seal(header_with(), b"\xef\xbb\xbf" + claims_with())),
    "payload with a trailing object": ("malformed", seal(header_with(), claims_with() + b"{}")),
    "payload with a comment": ("malformed", seal(header_with(), claims_with() + b"// x")),
    "a lone surrogate escape": ("malformed", raw_claim(f'"exp": {NOW + 60}, "x": "\\ud800"')),
    "a lone surrogate escape in a name": ("malformed", raw_claim(f'"exp": {NOW + 60}, "\\udfff": 1')),
    "a raw control character in a string": ("malformed", raw_claim(f'"exp": {NOW + 60}, "x": "\x01"')),
    "header a list": ("malformed", seal(b'["ES256"]', PAYLOAD)),
    # issuer
    "iss of somebody else": ("unknown_issuer", claiming(iss="https://evil.example")),
    "iss with a trailing slash": ("unknown_issuer", claiming(iss=ISSUER.url + "/")),
    "iss in upper case": ("unknown_issuer", claiming(iss="https://ISSUER.example")),
    "iss as http": ("unknown_issuer", claiming(iss="http://issuer.example")),
    "iss with user info": ("unknown_issuer", claiming(iss="https://issuer.example@evil.example")),
    "iss a list": ("unknown_issuer", claiming(iss=[ISSUER.url])),
    "iss absent": ("unknown_issuer", claiming(iss=DROPPED)),
    "iss null": ("unknown_issuer", claiming(iss=None)),
    # times
    "exp now": ("expired", claiming(exp=NOW)),
    "exp a second ago": ("expired", claiming(exp=NOW - 1)),
    "exp zero": ("expired", claiming(exp=0)),
    "exp negative": ("expired", claiming(exp=-1)),
    "exp absent": ("bad_claim", claiming(exp=DROPPED)),
    "exp a string": ("bad_claim", claiming(exp=str(NOW + 60))),
    "exp a float": ("bad_claim", claiming(exp=NOW + 60.5)),
    "exp true": ("bad_claim", claiming(exp=True)),
    "exp null": ("bad_claim", claiming(exp=None)),
    "exp a list": ("bad_claim", claiming(exp=[NOW + 60])),
    "nbf in the future": ("not_yet_valid", claiming(nbf=NOW + LEEWAY_SECONDS + 1)),
    "nbf a string": ("bad_claim", claiming(nbf="now")),
    "nbf false": ("bad_claim", claiming(nbf=False)),
    "iat in the future": ("not_yet_valid", claiming(iat=NOW + LEEWAY_SECONDS + 1)),
    "iat a string": ("bad_claim", claiming(iat=str(NOW))),
    "iat null": ("bad_claim", claiming(iat=None)),
    "lifetime a second too long": ("lifetime_too_long", claiming(exp=NOW + 3601)),
    "lifetime too long since an old iat": ("lifetime_too_long", claiming(iat=NOW - 3600)),
    "lifetime too long without iat": ("lifetime_too_long", claiming(iat=DROPPED, exp=NOW + 3601)),
    # audience
    "aud of somebody else": ("wrong_audience", claiming(aud="other")),
    "aud absent": ("wrong_audience", claiming(aud=DROPPED)),
    "aud an empty list": ("wrong_audience", claiming(aud=[])),
    "aud an empty string": ("wrong_audience", claiming(aud="")),
    "aud with a longer name": ("wrong_audience", claiming(aud="holdfast2")),
    "aud in another case": ("wrong_audience", claiming(aud="Holdfast")),
    "aud list of others": ("wrong_audience", claiming(aud=["a", "b"])),
    "aud a number": ("bad_claim", claiming(aud=1)),
    "aud null": ("bad_claim", claiming(aud=None)),
    "aud an object": ("bad_claim", claiming(aud={"holdfast": True})),
    "aud list with a number": ("bad_claim", claiming(aud=["holdfast", 1])),
    "aud list of lists": ("bad_claim", claiming(aud=[["holdfast"]])),
    # names
    "cnf": ("proof_required", claiming(cnf={"jkt": "x"})),
    "cnf null": ("proof_required", claiming(cnf=None)),
    "sub absent": ("bad_claim", claiming(sub=DROPPED)),
    "sub empty": ("bad_claim", claiming(sub="")),
    "sub a number": ("bad_claim", claiming(sub=1)),
    "sub a list": ("bad_claim", claiming(sub=["ada"])),
    "sub null": ("bad_claim", claiming(sub=None)),
    "sub of 257 characters": ("bad_claim", claiming(sub="a" * 257)),
    "sub with a newline": ("bad_claim", claiming(sub="ada\nImpersonate-User: root")),
    "sub with a NUL": ("bad_claim", claiming(sub="ada\0")),
    "sub with DEL": ("bad_claim", claiming(sub="ada\x7f")),
    "sub with a C1 control": ("bad_claim", claiming(sub="ada\x85")),
    "sub with a right-to-left override": ("bad_claim", claiming(sub="ada\u202egnp")),
    "sub with a zero-width space": ("bad_claim", claiming(sub="ada\u200b")),
    "sub with a line separator": ("bad_claim", claiming(sub="ada\u2028")),
    "sub system:admin": ("reserved_name", claiming(sub="system:admin")),
    "sub system:": ("reserved_name", claiming(sub="system:")),
    "a service account's sub": ("reserved_name", claiming(sub="system:serviceaccount:default:builder")),
    "group system:masters": ("reserved_name", claiming(groups=["dev", "system:masters"])),
    "group system:authenticated as one string": ("reserved_name", claiming(groups="system:authenticated")),
    "groups a number": ("bad_claim", claiming(groups=1)),
    "groups null": ("bad_claim", claiming(groups=None)),
    "groups an object": ("bad_claim", claiming(groups={"dev": True})),
    "groups with a number": ("bad_claim", claiming(groups=["dev", 1])),
    "groups with null": ("bad_claim", claiming(groups=["dev", None])),
    "groups with a list": ("bad_claim", claiming(groups=[["dev"]])),
    "groups with an empty name": ("bad_claim", claiming(groups=["dev", ""])),
    "groups with a control character": ("bad_claim", claiming(groups=["dev\r\n"])),
}


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_a_good_token_becomes_an_identity(token):
    identity = verify(token)
    assert identity.issuer == ISSUER.url
    assert identity.username


@pytest.mark.parametrize(("why", "token"), REFUSED.values(), ids=REFUSED)
def test_a_bad_token_is_refused_with_its_reason(why, token):
    with pytest.raises(Unauthorized) as refusal:
        verify(token)
    assert refusal.value.why == why
    assert refusal.value.status()["code"] == 401


@pytest.mark.parametrize(("why", "token"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_never_repeats_what_was_sent(why, token):
    with pytest.raises(Unauthorized) as refusal:
        verify(token)
    assert len(str(refusal.value)) < 100
    assert not any(segment in str(refusal.value) for segment in token.split(".") if len(segment) > 8)


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        (claiming(aud="other"), "aud: 'other'"),
        (claiming(aud=["one", "two"]), "aud: 'one', 'two'"),
        (claiming(aud=DROPPED), "aud: none"),
        (claiming(iss="https://evil.example"), "iss: 'https://evil.example'"),
        (claiming(iss=DROPPED), "iss: none"),
        (claiming(iss=7), "iss: is no text"),
        (heading(kid="ec-9"), "alg: ES256; kid: 'ec-9'"),
        (heading(RSA_1, alg="RS256", kid=DROPPED), "alg: RS256; kid: none"),
        (heading(alg="none"), "alg: 'none'"),
        (heading(kid="\u202ex\r\ny"), r"alg: ES256; kid: '\u202ex\r\ny'"),
        (claiming(aud="x" * 5000), f"aud: '{'x' * 191}..."),
    ],
)
def test_what_was_found_is_for_the_record_and_not_for_the_caller(token, detail):
    with pytest.raises(Unauthorized) as refusal:
        verify(token)
    assert refusal.value.detail == detail
    assert detail not in json.dumps(refusal.value.status())


def test_everything_wrong_with_key_or_signature_reads_the_same():
    reasons = {"bad_signature", "unknown_key", "alg_not_allowed", "malformed", "header_not_allowed"}
    for why, token in REFUSED.values():
        if why in reasons:
            with pytest.raises(Unauthorized, match=NOT_VALID):
                verify(token)


def test_an_honest_caller_reads_what_to_do():
    with pytest.raises(Unauthorized, match="expired; get a new one"):
        verify(claiming(exp=NOW))
    with pytest.raises(Unauthorized, match="another audience; get one for this gateway"):
        verify(claiming(aud="other"))


def test_claims_are_not_discussed_with_whoever_has_no_signature():
    with pytest.raises(Unauthorized) as refusal:
        verify(seal(header_with(), claims_with(exp=NOW - 1, aud="other"), STRANGER_EC))
    assert refusal.value.why == "bad_signature"


def test_an_identity_carries_names_groups_claims_and_expiry():
    identity = verify(claiming(groups=["dev", "ops"], repository="org/app"))
    assert (identity.username, identity.groups, identity.expires_at) == ("ada", ("dev", "ops"), NOW + 600)
    assert identity.claims["repository"] == "org/app"


def test_claims_are_immutable_all_the_way_down():
    claims = verify(claiming(a=[{"b": [1, {"c": 2}]}])).claims
    assert isinstance(claims, MappingProxyType)
    assert isinstance(claims["a"], tuple)
    assert isinstance(claims["a"][0], MappingProxyType)
    assert isinstance(claims["a"][0]["b"], tuple)
    assert isinstance(claims["a"][0]["b"][1], MappingProxyType)


def test_prefixes_and_claim_names_are_the_issuers():
    mapper = trusting(
        mappings={"username": {"claim": "email", "prefix": "oidc:"}, "groups": {"claim": "roles", "prefix": "g:"}}
    )
    identity = verify(claiming(email="ada@example.com", roles=["dev"]), mapper)
    assert (identity.username, identity.groups) == ("oidc:ada@example.com", ("g:dev",))


def test_a_prefix_takes_the_force_out_of_a_reserved_name():
    mapper = trusting(
        mappings={"username": {"claim": "sub", "prefix": "ci:"}, "groups": {"claim": "groups", "prefix": "ci:"}}
    )
    identity = verify(claiming(sub="system:admin", groups=["system:masters"]), mapper)
    assert (identity.username, identity.groups) == ("ci:system:admin", ("ci:system:masters",))


def test_a_name_cannot_complete_a_prefix_into_a_reserved_one():
    mapper = trusting(mappings={"username": {"claim": "sub", "prefix": "sys"}})
    with pytest.raises(Unauthorized) as refusal:
        verify(claiming(sub="tem:admin"), mapper)
    assert refusal.value.why == "reserved_name"


@pytest.mark.parametrize(("verified", "accepted"), [(True, True), (DROPPED, True), (False, False), ("true", False)])
def test_an_email_names_a_user_unless_the_issuer_says_it_is_unverified(verified, accepted):
    mapper = trusting(mappings={"username": {"claim": "email", "prefix": ""}})
    token = claiming(email="ada@example.com", email_verified=verified)
    if accepted:
        assert verify(token, mapper).username == "ada@example.com"
        return
    with pytest.raises(Unauthorized) as refusal:
        verify(token, mapper)
    assert refusal.value.why == "email_not_verified"


def test_an_algorithm_counts_only_where_the_issuer_allows_it():
    mapper = trusting(ISSUER.model_copy(update={"algorithms": ("RS256",)}))
    with pytest.raises(Unauthorized) as refusal:
        verify(GOOD, mapper)
    assert refusal.value.why == "alg_not_allowed"


SVID_ISSUER = ISSUER.model_copy(update={"url": "spiffe://example.org", "jwks_url": "https://spire.example.org/keys"})
SVID = claiming(iss=DROPPED, sub="spiffe://example.org/ns/shop")


@pytest.mark.parametrize(
    "token",
    [
        SVID,
        claiming(iss="spiffe://example.org", sub="spiffe://example.org/ns/shop"),
        seal(header_with(typ="JOSE"), claims_with(iss=DROPPED, sub="spiffe://example.org/ns/shop")),
        seal(header_with(typ=DROPPED), claims_with(iss=DROPPED, sub="spiffe://example.org/ns/shop")),
    ],
)
def test_an_svid_is_of_its_trust_domain(token):
    identity = verify(token, trusting(SVID_ISSUER))
    assert (identity.issuer, identity.username) == ("spiffe://example.org", "spiffe://example.org/ns/shop")


@pytest.mark.parametrize(
    ("why", "token"),
    [
        ("unknown_issuer", claiming(iss=DROPPED, sub="spiffe://other.org/ns/shop")),
        ("unknown_issuer", claiming(iss=DROPPED, sub="spiffe://example.org.evil.org/ns")),
        ("unknown_issuer", claiming(iss=DROPPED, sub="SPIFFE://example.org/ns")),
        ("unknown_issuer", claiming(iss=None, sub="spiffe://example.org/ns")),
        ("bad_claim", claiming(iss=DROPPED, sub="spiffe://example.org")),
        ("bad_claim", claiming(iss="spiffe://example.org", sub="spiffe://other.org/ns")),
        ("bad_claim", claiming(iss="spiffe://example.org", sub="ada")),
        ("bad_claim", claiming(iss="spiffe://example.org", sub=DROPPED)),
        ("wrong_type", seal(header_with(typ="at+jwt"), claims_with(iss=DROPPED, sub="spiffe://example.org/ns"))),
    ],
)
def test_an_svid_of_another_trust_domain_is_refused(why, token):
    with pytest.raises(Unauthorized) as refusal:
        verify(token, trusting(SVID_ISSUER))
    assert refusal.value.why == why


def test_a_token_is_never_verified_with_the_keys_of_another_issuer():
    with pytest.raises(Unauthorized) as refusal:
        verify(GOOD, trusting(ISSUER.model_copy(update={"url": "https://other.example"})))
    assert refusal.value.why == "unknown_issuer"


def test_no_key_verifies_nothing():
    with pytest.raises(Unauthorized) as refusal:
        verify(GOOD, keys=parse_key_set(b'{"keys": []}', ALGORITHMS))
    assert refusal.value.why == "unknown_key"


def refuse(text: str) -> None:
    with pytest.raises(Unauthorized):
        verify(text)


@given(st.text())
def test_any_text_is_refused(text):
    refuse(text)


@given(st.binary(), st.binary())
def test_any_signed_bytes_are_refused(header, payload):
    refuse(seal(header, payload))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.sampled_from(["alg", "kid", "typ", "x5t", "crit", "b64"]), JSON_VALUES)
def test_any_header_value_is_refused_or_is_the_right_one(name, value):
    text = heading(**{name: value})
    try:
        verify(text)
    except Unauthorized:
        return
    assert name in {"typ", "x5t"}
    assert isinstance(value, str)


@given(st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "groups", "cnf", "else"]), JSON_VALUES)
def test_any_claim_is_refused_or_gives_a_clean_identity(name, value):
    try:
        identity = verify(claiming(**{name: value}))
    except Unauthorized:
        return
    assert identity.issuer == ISSUER.url
    assert identity.expires_at > NOW
    assert all(text.isprintable() and not text.startswith("system:") for text in (identity.username, *identity.groups))


@given(st.integers(0, len(GOOD) - 1), st.characters())
def test_no_character_of_a_token_can_be_changed(position, character):
    text = GOOD[:position] + character + GOOD[position + 1 :]
    if text != GOOD:
        refuse(text)


@given(st.integers(0, len(GOOD)), st.text(min_size=1))
def test_nothing_can_be_inserted_into_a_token(position, text):
    refuse(GOOD[:position] + text + GOOD[position:])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, len(GOOD)))
def test_nothing_can_be_cut_out_of_a_token(position, length):
    refuse(GOOD[:position] + GOOD[position + length :])


ORACLE_KEYS = JoserfcKeySet.import_key_set(JWKS)
SIGNERS = {"ec-1": EC_1, "rsa-1": RSA_1, "rsa-2": RSA_2, "stranger-ec": STRANGER_EC, "stranger-rsa": STRANGER_RSA}


@given(
    algorithm=st.sampled_from(ALGORITHMS),
    key_id=st.sampled_from(["ec-1", "rsa-1", "rsa-2", "unknown"]),
    signer=st.sampled_from(sorted(SIGNERS)),
    claims=st.dictionaries(st.text(max_size=9).map("x-".__add__), st.text(max_size=9) | st.booleans(), max_size=3),
)
def test_another_library_agrees_about_every_well_formed_token(algorithm, key_id, signer, claims):
    token = seal(header_with(alg=algorithm, kid=key_id), claims_with(**claims), SIGNERS[signer])
    assert is_accepted_here(token) == is_accepted_by_joserfc(token)


def is_accepted_here(token: str) -> bool:
    try:
        return verify(token) is not None
    except Unauthorized:
        return False


def is_accepted_by_joserfc(token: str) -> bool:
    try:
        return joserfc_jws.deserialize_compact(token, ORACLE_KEYS, algorithms=list(ALGORITHMS)) is not None
    except (JoseError, ValueError, TypeError, AttributeError):
        return False


def test_the_oracle_itself_tells_good_from_bad():
    assert is_accepted_by_joserfc(GOOD)
    assert not is_accepted_by_joserfc(heading(STRANGER_EC))


def test_the_table_is_signed_the_way_it_claims():
    signature = base64.urlsafe_b64decode(SIGNATURE + "==")
    assert len(signature) == len(sign(b"", EC_1)) == 64

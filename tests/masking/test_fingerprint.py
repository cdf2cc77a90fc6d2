"""Equal secrets meet in the store, and nowhere else."""

import dataclasses
import hashlib
import hmac

import pytest

from holdfast.errors import ConfigurationError
from holdfast.masking.fingerprint import Fingerprinter, Views, is_mask

NAMES = frozenset({"secret-values"})


def masks(views, value=b"hunter2", namespace="prod", name="db", path=("data", "password")):
    return views.masks("secret-values", value, views.place(namespace, name), path)


def test_a_mask_is_prefix_rule_and_sixteen_digits_of_the_hmac(views):
    digest = hashlib.sha256(b"hunter2").digest()
    stored = hmac.digest(b"k" * 32, b'["store"]' + digest, "sha256").hex()[:16]
    place = b'["caller","https://issuer","agent","secrets","prod","db"]'
    seen = hmac.digest(b"k" * 32, place + b'["data","password"]' + digest, "sha256").hex()[:16]
    assert masks(views) == (f"masked:v1:secret-values:{seen}".encode(), f"masked:v1:secret-values:{stored}".encode())


def test_equal_secrets_have_equal_masks_in_the_store_wherever_they_are(views):
    other = dataclasses.replace(views, username="somebody", resource="configmaps")
    assert masks(views)[1] == masks(other, name="other", path=("stringData", "x"))[1]
    assert masks(views)[1] != masks(views, value=b"hunter3")[1]


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"namespace": "dev"},
        {"name": "mine"},
        {"path": ("data", "other")},
        {"path": ("data.password",)},
        {"namespace": "pro", "name": "ddb"},
    ],
)
def test_to_a_caller_equal_secrets_in_two_places_look_different(views, elsewhere):
    assert masks(views)[0] != masks(views, **elsewhere)[0]


@pytest.mark.parametrize("field", ["issuer", "username", "resource"])
def test_to_two_callers_the_same_secret_looks_different(views, field):
    assert masks(views)[0] != masks(dataclasses.replace(views, **{field: "another"}))[0]


def test_the_same_caller_sees_the_same_mask_again(views):
    assert masks(views)[0] == masks(views)[0]


def test_the_key_decides_and_is_never_shown(views):
    other = dataclasses.replace(views, fingerprinter=Fingerprinter(b"j" * 32))
    assert masks(views)[0] != masks(other)[0]
    assert masks(views)[1] != masks(other)[1]
    assert "kkk" not in repr(views)


def test_a_short_key_is_refused():
    with pytest.raises(ConfigurationError, match="31 bytes; expected at least 32"):
        Fingerprinter(b"k" * 31)


def test_the_object_of_the_request_stands_in_for_one_that_does_not_name_itself(views):
    assert views.place() == views.place("prod", "db")
    assert views.place() == Views(views.fingerprinter, "https://issuer", "agent", "secrets").place("prod", "db")


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (b"masked:v1:secret-values:0123456789abcdef", True),
        (b"masked:v1:secret-values:0123456789abcdef\n", False),
        (b"masked:v1:secret-values:0123456789abcde", False),
        (b"masked:v1:secret-values:0123456789ABCDEF", False),
        (b"masked:v1:secret-values:0123456789abcdef0", False),
        (b"masked:v1:a-real-secret:0123456789abcdef", False),
        (b" masked:v1:secret-values:0123456789abcdef", False),
        (b"masked:v1:", False),
        (b"", False),
    ],
)
def test_only_a_whole_mask_of_a_known_rule_is_taken_for_one(value, known):
    assert is_mask(value, NAMES) is known

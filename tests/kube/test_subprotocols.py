"""The token among the subprotocols: one spelling, and everything else refused without repeating it."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import BadRequest, HoldfastError, Unauthorized
from holdfast.kube.subprotocols import BEARER, split_bearer

PREFIX = BEARER.encode()
SECRET = b"aHVudGVyMg"


@pytest.mark.parametrize(
    ("values", "token", "others"),
    [
        ([], None, ()),
        ([b""], None, ()),
        ([b"v5.channel.k8s.io , v4.channel.k8s.io"], None, ("v5.channel.k8s.io", "v4.channel.k8s.io")),
        ([b"SPDY/3.1+portforward.k8s.io"], None, ("SPDY/3.1+portforward.k8s.io",)),
        ([PREFIX + SECRET + b",v5.channel.k8s.io"], "hunter2", ("v5.channel.k8s.io",)),
        (
            [b"v5.channel.k8s.io", b"\t" + PREFIX + SECRET, b"v4.channel.k8s.io"],
            "hunter2",
            ("v5.channel.k8s.io", "v4.channel.k8s.io"),
        ),
        ([b"x," + PREFIX + b"fn9-fg"], "~\x7f~~", ("x",)),
    ],
)
def test_the_token_is_told_from_the_others(values: list[bytes], token: str | None, others: tuple[str, ...]) -> None:
    assert split_bearer(values) == (token, others)


@pytest.mark.parametrize(
    ("values", "refusal", "why"),
    [
        ([PREFIX + SECRET], Unauthorized, "the only subprotocol"),
        ([PREFIX + SECRET + b", ,"], Unauthorized, "the only subprotocol"),
        ([b"x," + PREFIX + SECRET + b"," + PREFIX + SECRET], Unauthorized, "several"),
        ([b"x", PREFIX + SECRET, PREFIX + b"b3RoZXI"], Unauthorized, "several"),
        ([b"x," + PREFIX], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + b"a"], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + b"aHVudGVyMh"], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + b"a+b/"], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + SECRET + b"."], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + b"w7w"], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + b"_w"], Unauthorized, "not base64url"),
        ([b"x," + PREFIX + SECRET + b"=="], BadRequest, "no token"),
        ([b"x," + PREFIX + b"aHVu dGVyMg"], BadRequest, "no token"),
        ([b"x,\xc2\xa0" + PREFIX + SECRET], BadRequest, "no token"),
        ([b'x,"' + PREFIX + SECRET + b'"'], BadRequest, "no token"),
        ([b"x," + PREFIX.upper() + SECRET], BadRequest, "looks like"),
        ([b"x,x" + PREFIX + SECRET], BadRequest, "looks like"),
        ([b"x,base64.bearer.authorization.k8s.io." + SECRET], BadRequest, "looks like"),
        ([b"x,base64url.bearer.authorization.k8s.io"], BadRequest, "looks like"),
    ],
)
def test_whatever_is_not_that_one_spelling_is_refused(
    values: list[bytes], refusal: type[HoldfastError], why: str
) -> None:
    with pytest.raises(refusal, match=why) as raised:
        split_bearer(values)
    assert "aHVu" not in str(raised.value)
    assert "hunter" not in str(raised.value)


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_what_is_forwarded_has_no_token_in_it(encoded: bytes, more: bytes) -> None:
    try:
        token, others = split_bearer([b"v5.channel.k8s.io," + PREFIX + encoded, more])
    except HoldfastError:
        return
    assert not any("bearer" in other.lower() for other in others)
    assert token is not None
    assert base64.urlsafe_b64encode(token.encode()).rstrip(b"=") == encoded.strip(b" \t").partition(b",")[0]

"""Whatever is done to a good message, it is refused or still says the same; nothing else is ever raised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import Unauthorized
from holdfast.identity.saml.response import verify_assertion, verify_response
from identity.saml.forging import (
    ASSERTION,
    NOW,
    REQUEST,
    Seal,
    assertion_signed,
    grant,
    response_signed,
    sealed,
    sign,
    trusting,
    wrap,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.identity.saml.assertion import SAMLIdentity

PROVIDER = trusting()


def answer(document: bytes) -> SAMLIdentity:
    return verify_response(document, PROVIDER, REQUEST, NOW)


def present(document: bytes) -> SAMLIdentity:
    return verify_assertion(document, {PROVIDER.entity_id: PROVIDER}, NOW)


MESSAGES = [
    pytest.param(answer, assertion_signed(), id="assertion signed"),
    pytest.param(answer, response_signed(), id="response signed"),
    pytest.param(answer, sign(wrap(sign(ASSERTION))).encode(), id="both signed"),
    pytest.param(answer, sealed(Seal()), id="no KeyInfo"),
    pytest.param(present, grant(), id="for the token endpoint"),
]


def require_same(verify: Callable[[bytes], SAMLIdentity], changed: bytes, good: bytes) -> None:
    try:
        identity = verify(changed)
    except Unauthorized:
        return
    assert identity == verify(good)


@given(document=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_refused(document: bytes) -> None:
    for verify in (answer, present):
        with pytest.raises(Unauthorized):
            verify(document)


@pytest.mark.parametrize(("verify", "good"), MESSAGES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_change_of_one_byte(verify: Callable[[bytes], SAMLIdentity], good: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.binary(max_size=1) | st.sampled_from([b"<", b">", b'"', b"&", b"/", b" ", b"\n", b":", b"_"]))
    kept = data.draw(st.sampled_from([0, 1]))
    require_same(verify, good[:place] + byte + good[place + 1 - kept :], good)


@pytest.mark.parametrize(("verify", "good"), MESSAGES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_piece_put_elsewhere(verify: Callable[[bytes], SAMLIdentity], good: bytes, data: st.DataObject) -> None:
    """Pieces begin and end where tags do, so that many of the results are XML."""
    edges = [place for place in range(len(good)) if good[place : place + 1] == b"<"] + [len(good)]
    edge = st.sampled_from(edges)
    first, last, place = data.draw(edge), data.draw(edge), data.draw(edge)
    piece = good[min(first, last) : max(first, last)]
    require_same(verify, good[:place] + piece + good[place:], good)
    require_same(verify, good.replace(piece, b"", 1) if piece else good, good)


@pytest.mark.parametrize(("verify", "good"), MESSAGES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_an_attribute_or_a_text_of_another(
    verify: Callable[[bytes], SAMLIdentity], good: bytes, data: st.DataObject
) -> None:
    words = sorted({word for part in good.split(b'"') for word in part.replace(b">", b"<").split(b"<") if word})
    old, new = data.draw(st.sampled_from(words)), data.draw(st.sampled_from(words) | st.binary(max_size=8))
    require_same(verify, good.replace(old, new), good)

"""One spelling of base64url and JSON."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.identity.serialization import MAX_INTEGER, decode_base64url, encode_base64url, parse_object


@given(st.binary())
def test_bytes_survive_base64url(data):
    assert decode_base64url(encode_base64url(data)) == data


@given(st.text(alphabet="ABab01-_+/= \n", max_size=12))
def test_base64url_has_one_spelling(text):
    try:
        data = decode_base64url(text)
    except ValueError:
        return
    assert encode_base64url(data) == text


# Text that has a UTF-8 form: no lone surrogates.
TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=6,
)


@given(st.dictionaries(TEXT, PLAIN_VALUES), st.booleans())
def test_plain_json_means_what_the_standard_library_says(value, ascii_only):
    assert thaw(parse_object(json.dumps(value, ensure_ascii=ascii_only).encode())) == value


def thaw(value):
    if isinstance(value, MappingProxyType):
        return {name: thaw(item) for name, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


@given(st.binary() | st.text(alphabet='{}[]",:\\u0aeE+-.1ntf ').map(str.encode))
def test_anything_else_is_a_value_error(document):
    try:
        parse_object(document)
    except ValueError:
        return
    assert isinstance(json.loads(document), dict)


@pytest.mark.parametrize("depth", [17, 1_000, 100_000])
@pytest.mark.parametrize("brackets", ["[]", '{"":}'])
def test_depth_is_refused_before_it_is_walked(depth, brackets):
    opening, closing = (brackets[0], brackets[1]) if brackets == "[]" else ('{"":', "}")
    with pytest.raises(ValueError, match="nested deeper"):
        parse_object((opening * depth + "1" + closing * depth).encode())

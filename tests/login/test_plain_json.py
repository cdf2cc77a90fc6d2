"""The cached path's JSON, held against the json package."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.login.plain_json import parse_json, quote

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.sampled_from([None, 1, "\t"]))
def test_it_reads_what_json_writes(value: object, indent: int | str | None) -> None:
    for document in (json.dumps(value, indent=indent), json.dumps(value, ensure_ascii=False)):
        assert parse_json(f" {document}\r\n") == value


@given(st.text(alphabet=' \n{}[]:,"\\aeflnrstuN0123.-+', max_size=12))
def test_it_refuses_what_json_refuses(document: str) -> None:
    try:
        wanted = json.loads(document, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(ValueError, match=r"."):
            parse_json(document)
    else:
        assert parse_json(document) == wanted


@given(st.text())
def test_a_string_is_written_as_json_writes_it(text: str) -> None:
    assert quote(text) == json.dumps(text)

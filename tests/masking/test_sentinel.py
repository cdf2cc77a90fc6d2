"""A mask is found in whatever a caller writes, and nothing else is taken for one."""

import base64
import json
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.masking.sentinel import find_mask

MASK = "masked:v1:secret-values:0123456789abcdef"
CODED = base64.b64encode(MASK.encode()).decode()
ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in MASK)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (json.dumps({"data": {"password": CODED}}), "data.password"),
        (json.dumps({"stringData": {"a": "x", "b": f"before {MASK} after"}}), "stringData.b"),
        (json.dumps([{"op": "add", "path": "/data/a", "value": CODED}]), "[0].value"),
        (json.dumps({"metadata": {"annotations": {"a/b": json.dumps({"c": MASK})}}}), "metadata.annotations.a/b"),
        (json.dumps({"a": json.dumps({"b": json.dumps({"c": MASK})}).replace("m", "\\u006d")}), "a"),
        (f'{{"data": {{"a": "{ESCAPED}"}}}}', "data.a"),
        (f'{{"data": {{"a": "{CODED[:7]}\\n{CODED[7:]}"}}}}', "data.a"),
        (f'{{"data": {{"a": "{CODED[:7]}\\u000a{CODED[7:]}"}}}}', "data.a"),
        (f'{{"a": "{MASK}", "a": "x"}}', "a"),
        (f'{{"\\ud800": ["{MASK}"]}}', "\ud800[0]"),
        (json.dumps({MASK: 1}), "line 1"),
        (f'{{"a": 1,\n "b": "{MASK}"', "line 2"),
        (f"data:\n  password: {CODED}\n", "line 2"),
        (f'stringData:\n  a: "{ESCAPED}"\n', "the body"),
        (f'stringData:\n  a: "\\x6d{MASK[1:]}"\n', "the body"),
        (f'stringData:\n  a: "\\U0000006d{MASK[1:]}"\n', "the body"),
        ("data:\n  a: |\n" + textwrap.indent("\n".join(textwrap.wrap(CODED, 8)), "    "), "the body"),
        (f"data:\n  a: !!binary {CODED[:9]}\n   {CODED[9:]}", "the body"),
        (f'data:\n  a: "{CODED[:9]}\\\n    {CODED[9:]}"', "the body"),
        ("[" * 100_000 + f'"{MASK}"' + "]" * 100_000, "line 1"),
    ],
)
def test_a_mask_is_found_in_every_spelling(body, place):
    assert find_mask(body.encode()) == place


def test_a_mask_in_protobuf_is_found():
    assert find_mask(b"k8s\x00\n\x0c\n\x02v1\x12\x06Secret\x12\x20" + MASK.encode()) == "the body"


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_a_mask_is_found_inside_base64_at_any_offset(before, after):
    coded = base64.b64encode(before + MASK.encode() + after).decode()
    assert find_mask(json.dumps({"data": {"a": coded}}).encode()) == "data.a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"note": "values are masked: v1: see the docs"}',
        b'{"note": "masked:v2:a:0"}',
        b'{"a": "\\\\unmasked", "b": "C:\\\\masked"}',
        b"\\" * 100_000,
        b'{"a": "\xff\\u00"}',
        json.dumps({"data": {"a": base64.b64encode(b"an unmasked value: v1").decode()}}).encode(),
    ],
)
def test_what_is_no_mask_passes(body):
    assert find_mask(body) is None


def test_a_long_path_is_cut():
    assert len(find_mask(json.dumps({"k" * 5000: MASK}).encode())) <= 256

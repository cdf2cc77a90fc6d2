"""JSON bodies: what rules reach is masked as jsonpath-ng would find it; every other byte stays."""

import base64
import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonpath_ng.jsonpath import Index
from jsonpath_ng.parser import parse

from holdfast.errors import BadGateway
from holdfast.exchange import Mask
from holdfast.masking.body import mask_event, mask_json, mask_json_patch, mask_object
from holdfast.masking.fingerprint import Fingerprinter, Views
from holdfast.masking.plan import compile_plan
from holdfast.masking.states import EXEMPT, LAST_APPLIED

VIEWS = Views(Fingerprinter(b"k" * 32), "https://issuer", "agent", "secrets", "prod", "db")
SECRETS = compile_plan((Mask("secret-values", fields=("$.stringData.*",), base64_fields=("$.data.*",)),))
PASSWORDS = compile_plan((Mask("passwords", fields=("$..password",)),))
ANNOTATION = LAST_APPLIED[-1]


def stored(value, rule="secret-values"):
    return VIEWS.masks(rule, value.encode(), b"", ())[1].decode()


def seen(value, path, rule="secret-values", namespace="prod", name="db"):
    return VIEWS.masks(rule, value.encode(), VIEWS.place(namespace, name), path)[0].decode()


def base64_of(text):
    return base64.b64encode(text.encode()).decode()


# Against jsonpath-ng, byte for byte.

KEYS = st.sampled_from(["a", "b", "c", "data", "x.y", "a/b", "é", '"', "*", "0", "", "kind", "\n"])
SCALARS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=5)

STEPS = st.one_of(
    KEYS.filter(lambda key: "\n" not in key).map(lambda key: "['" + key + "']"),
    st.just("[*]"),
    st.just(".*"),
    st.integers(0, 2).map(lambda index: f"[{index}]"),
    st.sampled_from(["..a", "..['x.y']", "..*", "..[0]", "..data.b"]),
)
PATHS = st.lists(STEPS, min_size=1, max_size=4).map(lambda steps: "$" + "".join(steps))


def place_of(datum):
    steps = []
    while datum.context is not None:
        path = datum.path
        steps.append(path.indices[0] if isinstance(path, Index) else path.fields[0])
        datum = datum.context
    return tuple(reversed(steps))


def leaves(value, place):
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        return {place} if value is not None else set()
    return {leaf for key, child in children for leaf in leaves(child, (*place, key))}


def expected_leaves(document, paths):
    matches = (datum for path in paths for datum in parse(path).find(document))
    found = {leaf for datum in matches for leaf in leaves(datum.value, place_of(datum))}
    return {leaf for leaf in found if not any(leaf[: len(exempt)] == exempt for exempt in EXEMPT)}


def spelled_string(text, rng):
    units = text.encode("utf-16-be")
    escaped = "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    return rng.choice([json.dumps(text), json.dumps(text, ensure_ascii=False), f'"{escaped}"'])


def spelled(value, style, place, replace):
    """Spell `value` as JSON in a style that depends on nothing but `style` and the place."""
    rng = random.Random(f"{style}{place}")  # noqa: S311

    def space():
        return rng.choice(["", "", "", " ", "\n\t", "\r\n  "])

    if isinstance(value, dict):
        members = [
            f"{space()}{spelled_string(key, rng)}{space()}:{space()}{spelled(child, style, (*place, key), replace)}"
            f"{space()}"
            for key, child in value.items()
        ]
        return "{" + (",".join(members) or space()) + "}"
    if isinstance(value, list):
        elements = [
            space() + spelled(child, style, (*place, index), replace) + space() for index, child in enumerate(value)
        ]
        return "[" + (",".join(elements) or space()) + "]"
    text = spelled_string(value, rng) if isinstance(value, str) else json.dumps(value)
    return replace(place, value, text)


def masked_spelling(document, style, chosen, view):
    def replace(place, value, text):
        if place not in chosen:
            return text
        plain = value if isinstance(value, str) else text
        return '"' + VIEWS.masks("rule", plain.encode(), VIEWS.place(), place)[view].decode() + '"'

    return spelled(document, style, (), replace).encode()


@settings(max_examples=400)
@given(document=DOCUMENTS, paths=st.lists(PATHS, min_size=1, max_size=3), style=st.integers(0, 99))
def test_both_views_are_the_body_with_just_those_leaves_replaced_that_jsonpath_ng_finds(document, paths, style):
    plan = compile_plan((Mask("rule", fields=tuple(paths)),))
    chosen = expected_leaves(document, paths)
    masked = mask_object(masked_spelling(document, style, frozenset(), 0), plan, VIEWS)
    assert masked.caller == masked_spelling(document, style, chosen, 0)
    assert masked.store == masked_spelling(document, style, chosen, 1)
    assert masked.counts == ({"rule": len(chosen)} if chosen else {})


@given(document=DOCUMENTS, path=PATHS, style=st.integers(0, 99), base64_too=st.booleans())
def test_a_masked_body_is_json_and_is_not_masked_again(document, path, style, base64_too):
    mask = Mask("rule", base64_fields=(path,)) if base64_too else Mask("rule", fields=(path,))
    plan = compile_plan((mask,))
    masked = mask_object(masked_spelling(document, style, frozenset(), 0), plan, VIEWS)
    for view in (masked.caller, masked.store):
        json.loads(view)
        again = mask_object(view, plan, VIEWS)
        assert (again.caller, again.store, again.counts) == (view, view, {})


@given(st.binary(max_size=40) | st.text(alphabet='{}[]",:\\ ab1', max_size=30).map(str.encode))
def test_whatever_is_not_a_json_object_is_refused_and_nothing_else_is_raised(body):
    try:
        masked = mask_json(body, PASSWORDS, VIEWS)
    except BadGateway:
        return
    assert body == b"" or isinstance(json.loads(masked.caller), dict)


# What an answer is made of.


def secret(name="db", **more):
    return {"metadata": {"name": name, "namespace": "prod"}, "data": {"password": base64_of("hunter2")}, **more}


def masked_secret(name="db"):
    mask = seen("hunter2", ("data", "password"), name=name)
    return {"metadata": {"name": name, "namespace": "prod"}, "data": {"password": base64_of(mask)}}


def table_of(rows):
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": [{"name": "Name"}], "rows": rows}


ANSWERS = {
    "an object": (secret(), masked_secret()),
    "a list": (
        {"kind": "SecretList", "metadata": {"continue": "c"}, "items": [secret(), secret("two")]},
        {"kind": "SecretList", "metadata": {"continue": "c"}, "items": [masked_secret(), masked_secret("two")]},
    ),
    "a list whose kind is any word": (
        {"kind": "Secretariat", "metadata": {}, "items": [secret()]},
        {"kind": "Secretariat", "metadata": {}, "items": [masked_secret()]},
    ),
    "a list without kind or metadata": ({"items": [secret()]}, {"items": [masked_secret()]}),
    "a list of nothing": ({"kind": "SecretList", "items": []}, {"kind": "SecretList", "items": []}),
    "a list of null": ({"kind": "SecretList", "items": None}, {"kind": "SecretList", "items": None}),
    "an object called a list, with items of its own": (
        {"kind": "AllowList", "items": [1], **secret()},
        {"kind": "AllowList", "items": [1], **masked_secret()},
    ),
    "a table": (
        table_of([{"cells": ["db", 1], "object": secret()}, {"cells": [], "object": None}, {"cells": []}]),
        table_of([{"cells": ["db", 1], "object": masked_secret()}, {"cells": [], "object": None}, {"cells": []}]),
    ),
    "a status": (
        {"kind": "Status", "apiVersion": "v1", "data": {"password": "cGxhaW4="}},
        {"kind": "Status", "apiVersion": "v1", "data": {"password": "cGxhaW4="}},
    ),
    "a Status of another API": (
        {"kind": "Status", "apiVersion": "example.com/v1", **secret()},
        {"kind": "Status", "apiVersion": "example.com/v1", **masked_secret()},
    ),
    "a Table of another API": (
        {"kind": "Table", "apiVersion": "example.com/v1", "rows": 1, **secret()},
        {"kind": "Table", "apiVersion": "example.com/v1", "rows": 1, **masked_secret()},
    ),
}


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_each_kind_of_answer_is_masked_where_its_objects_are(answer, expected):
    assert json.loads(mask_json(json.dumps(answer).encode(), SECRETS, VIEWS).caller) == expected


@pytest.mark.parametrize(("answer", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_a_watch_event_is_masked_as_the_answer_it_carries(answer, expected):
    event = {"type": "ADDED", "object": answer}
    masked = json.loads(mask_event(json.dumps(event).encode(), SECRETS, VIEWS).caller)
    assert masked == {"type": "ADDED", "object": expected}


def test_a_request_body_is_an_object_whatever_it_says():
    body = json.dumps({"kind": "Status", "apiVersion": "v1", "items": [], "stringData": {"a": "s"}}).encode()
    stored_view = json.loads(mask_object(body, SECRETS, VIEWS).store)
    assert stored_view["stringData"] == {"a": stored("s")}


def test_a_merge_patch_that_removes_a_value_keeps_its_null():
    body = b'{"metadata": null, "data": {"old": null, "new": "bmV3"}}'
    store = json.loads(mask_object(body, SECRETS, VIEWS).store)
    assert store == {"metadata": None, "data": {"old": None, "new": base64_of(stored("new"))}}


def test_a_bookmark_keeps_what_keeps_a_watch_in_step():
    plan = compile_plan((Mask("all", fields=("$.*", "$..*")),))
    exempt = {"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}}
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Secret", "apiVersion": "v1", "metadata": exempt}}
    body = json.dumps(bookmark).encode()
    assert mask_event(body, plan, VIEWS).caller == body


@pytest.mark.parametrize("event", [b"[]", b"1", b'{"type":"ADDED","object":"text"}', b'{"type":"ADDED","object":[]}'])
def test_an_event_that_carries_no_object_is_refused(event):
    with pytest.raises(BadGateway):
        mask_event(event, SECRETS, VIEWS)


# Values.


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("text", "text"),
        ("", ""),
        ("\u00e9\n", "\u00e9\n"),
        (12345678901234567890123, "12345678901234567890123"),
        (1.5, "1.5"),
        (True, "true"),
    ],
)
def test_every_scalar_becomes_the_mask_of_its_text(value, plain):
    body = json.dumps({"stringData": {"a": value}}).encode()
    assert json.loads(mask_object(body, SECRETS, VIEWS).store) == {"stringData": {"a": stored(plain)}}


@pytest.mark.parametrize(
    "spelling",
    ["aHVudGVyMj8+", "aHVudGVyMj8-", "aHVudGVy\\nMj8+", " aHVudGVyMj8+ ", "\\u0061HVudGVyMj8+"],
    ids=["standard", "URL-safe", "wrapped", "padded with spaces", "escaped"],
)
def test_base64_in_any_spelling_correlates_with_the_value_it_decodes_to(spelling):
    body = f'{{"data": {{"a": "{spelling}"}}}}'.encode()
    store = json.loads(mask_object(body, SECRETS, VIEWS).store)
    assert base64.b64decode(store["data"]["a"], validate=True).decode() == stored("hunter2?>")


@pytest.mark.parametrize(("text", "plain"), [("aHVudGVy", "hunter"), ("aHVudGVyMg", "hunter2"), ("a", "a"), ("%", "")])
def test_base64_without_padding_and_text_that_is_none_are_masked_too(text, plain):
    store = json.loads(mask_object(json.dumps({"data": {"a": text}}).encode(), SECRETS, VIEWS).store)
    assert base64.b64decode(store["data"]["a"], validate=True).decode() == stored(plain)


def test_base64_of_base64_is_masked_as_the_outer_value():
    body = json.dumps({"data": {"release": base64_of(base64_of("chart"))}}).encode()
    store = json.loads(mask_object(body, SECRETS, VIEWS).store)
    assert base64.b64decode(store["data"]["release"]).decode() == stored(base64_of("chart"))


def test_a_secret_in_data_and_in_string_data_has_one_fingerprint_in_the_store():
    body = json.dumps({"stringData": {"a": "s"}, "data": {"b": base64_of("s")}}).encode()
    store = json.loads(mask_object(body, SECRETS, VIEWS).store)
    assert base64.b64decode(store["data"]["b"]).decode() == store["stringData"]["a"]


def test_a_field_that_any_rule_calls_base64_stays_base64():
    masks = (Mask("plain", fields=("$.data.*",)), Mask("coded", base64_fields=("$.data.*",)))
    masked = mask_object(b'{"data":{"a":"cw=="}}', compile_plan(masks), VIEWS)
    assert base64.b64decode(json.loads(masked.store)["data"]["a"]).decode() == stored("s", rule="coded")


def test_what_only_looks_like_a_mask_is_masked():
    pretended = "masked:v1:hunter2hunter2:0123456789abcdef"
    body = json.dumps({"stringData": {"a": pretended}}).encode()
    assert json.loads(mask_object(body, SECRETS, VIEWS).store)["stringData"]["a"] == stored(pretended)


# Traps.


@pytest.mark.parametrize(
    "body",
    [
        b'{"password":"a","password":"b"}',
        b'{"password":"a","password":"a"}',
        b'{"password":"a","passw\\u006frd":"a"}',
        b'{"x":1,"password":"a","x":1}',
        b'{"x":{"password":"a","password":"b"}}',
        b'{"x":{"q":1,"b":2},"b":"password","x":123456}',
        b'{"a":1,"b":22,"a":{"k":0,"b"      :5},"password":"x"}',
        b'{"kind":"Secret","kind":"Status","apiVersion":"v1","password":"a"}',
        b'{"items":[{"metadata":{},"password":"a","password":"b"}]}',
        b'{"items":[{"password":"a"}],"items":[]}',
    ],
)
def test_an_object_on_the_way_that_says_a_key_twice_is_refused(body):
    with pytest.raises(BadGateway, match="a key is repeated") as refused:
        mask_json(body, PASSWORDS, VIEWS)
    assert "password" not in str(refused.value)


def test_a_repeated_key_where_no_rule_leads_stays():
    body = b'{"a":{"x":1,"x":2},"data":{"k":"cw=="}}'
    assert mask_json(body, SECRETS, VIEWS).caller.startswith(b'{"a":{"x":1,"x":2},"data":{"k":"')


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "malformed"),
        (b"null", "malformed"),
        (b"[]", "malformed"),
        (b"   ", "malformed"),
        (b'{"password":"a"} {}', "malformed"),
        (b'{"password":"\\ud800"}', "malformed"),
        (b'{"password":NaN}', "malformed"),
        (b'{"\xff":1,"password":"a"}', "malformed"),
        (b'\xef\xbb\xbf{"password":"a"}', "malformed"),
        (b'{"a":' * 200 + b'{"password":"a"}' + b"}" * 200, "nested too deeply"),
        (b'{"a":' * 99999 + b"1" + b"}" * 99999, "nested too deeply"),
        (b'{"metadata":{"name":1},"password":"a"}', "malformed"),
    ],
)
def test_what_cannot_be_read_under_a_rule_is_withheld(body, reason):
    with pytest.raises(BadGateway, match=reason):
        mask_json(body, PASSWORDS, VIEWS)


@pytest.mark.parametrize("body", [b"", b"not json", b'{"a":1,"a":2}', b"\xff"])
def test_without_a_field_rule_a_body_is_not_even_parsed(body):
    plan = compile_plan((Mask("tokens", patterns=("secret",)),))
    for mask in (mask_json, mask_object, mask_event, mask_json_patch):
        assert mask(body, plan, VIEWS).store == body


def test_a_key_spelled_with_escapes_is_found():
    masked = mask_object(b'{"d\\u0061ta" : {"\\u0070assword": "cw=="}}', SECRETS, VIEWS)
    assert masked.store == b'{"d\\u0061ta" : {"\\u0070assword": "' + base64_of(stored("s")).encode() + b'"}}'


def test_a_key_spelled_with_escapes_deep_below_is_found():
    masked = mask_object(b'{"a":{"b":[{"\\u0070assword":"x"}]}}', PASSWORDS, VIEWS)
    assert b'"x"' not in masked.store


def test_a_value_that_is_not_utf8_is_masked():
    assert b"\xff" not in mask_object(b'{"password":"\xff"}', PASSWORDS, VIEWS).store


def test_numbers_keys_order_and_spaces_around_a_mask_stay():
    before, after = b'{ "z":1e400,\t"big":123456789012345678901234567890, "data":{"k":', b' } ,"a":-0.0}\n'
    assert mask_json(before + b'"cw=="' + after, SECRETS, VIEWS).store == (
        before + b'"' + base64_of(stored("s")).encode() + b'"' + after
    )


# last-applied-configuration.


def annotated(text, **more):
    return {"metadata": {"name": "db", "namespace": "prod", "annotations": {ANNOTATION: text}}, **more}


def annotation_of(body):
    return json.loads(body)["metadata"]["annotations"][ANNOTATION]


def test_the_object_in_the_annotation_is_masked_and_stays_json():
    applied = json.dumps({"kind": "Secret", "data": {"a": base64_of("s")}, "x": [1e3]})
    masked = mask_json(json.dumps(annotated(applied)).encode(), SECRETS, VIEWS)
    assert json.loads(annotation_of(masked.store)) == {
        "kind": "Secret",
        "data": {"a": base64_of(stored("s"))},
        "x": [1e3],
    }
    assert masked.counts == {"secret-values": 1}


def test_an_annotation_with_nothing_to_mask_stays_byte_for_byte():
    body = json.dumps(annotated(json.dumps({"kind": "Secret", "other": "\u00e9\\"}))).encode()
    assert mask_json(body, SECRETS, VIEWS).caller == body


@pytest.mark.parametrize("text", ["", "not json s3cret", "[]", '{"data":{"a":"x"},"data":{}}', "null"])
def test_an_annotation_that_is_no_object_is_masked_whole(text):
    masked = mask_json(json.dumps(annotated(text)).encode(), SECRETS, VIEWS)
    assert annotation_of(masked.store) == stored(text)


def test_a_rule_for_the_annotation_itself_goes_first():
    plan = compile_plan((Mask("applied", fields=(f"$.metadata.annotations['{ANNOTATION}']", "$.data.*")),))
    masked = mask_json(json.dumps(annotated('{"data":{"a":"s"}}')).encode(), plan, VIEWS)
    assert annotation_of(masked.store) == stored('{"data":{"a":"s"}}', rule="applied")


def test_the_annotation_is_opened_inside_the_annotation():
    inner = json.dumps(annotated(json.dumps({"stringData": {"a": "s"}})))
    masked = mask_json(json.dumps(annotated(inner)).encode(), SECRETS, VIEWS)
    assert json.loads(annotation_of(annotation_of(masked.store))) == {"stringData": {"a": stored("s")}}


@pytest.mark.parametrize("target", ["db", "target"])
def test_a_guess_in_the_annotation_does_not_show_whether_it_is_right(target):
    """Whoever may annotate can claim any object in the annotation; its masks must match none of that object's."""

    def masks_of(name, secret, claimed=None):
        applied = {"metadata": {"name": claimed or name, "namespace": "prod"}, "stringData": {"a": secret}}
        body = {**annotated(json.dumps(applied)), "stringData": {"a": secret if claimed is None else "own"}}
        body["metadata"]["name"] = name
        caller = mask_json(json.dumps(body).encode(), SECRETS, VIEWS).caller
        return json.loads(caller)["stringData"]["a"], json.loads(annotation_of(caller))["stringData"]["a"]

    _, guessed = masks_of("mine", "guess", claimed=target)
    assert guessed not in masks_of(target, "guess")
    live, applied = masks_of(target, "guess")
    assert live != applied


# Callers.


def test_the_caller_sees_masks_bound_to_the_object_not_to_its_place_in_a_list():
    def of(name, body):
        items = json.loads(mask_json(json.dumps(body).encode(), SECRETS, VIEWS).caller)
        return next(item["data"] for item in items.get("items", [items]) if item["metadata"]["name"] == name)

    alone = of("two", secret("two"))
    assert alone == of("two", {"items": [secret("one"), secret("two")]})
    assert alone != of("one", {"items": [secret("one"), secret("two")]})


def test_an_object_without_a_name_is_bound_to_the_request():
    body = json.dumps({"stringData": {"a": "s"}}).encode()
    here = mask_json(body, SECRETS, VIEWS)
    elsewhere = mask_json(body, SECRETS, dataclasses.replace(VIEWS, name="other"))
    assert here.store == elsewhere.store
    assert here.caller != elsewhere.caller


# JSON Patch.


def test_every_value_of_a_json_patch_is_masked_and_nothing_else():
    patch = [
        {"op": "test", "path": "/data/a", "value": "cw=="},
        {"op": "add", "path": "/data", "value": {"b": ["x", {"c": 1}], "n": None}},
        {"op": "move", "from": "/data/a", "path": "/data/z"},
        {"op": "remove", "path": "/value"},
    ]
    store = json.loads(mask_json_patch(json.dumps(patch).encode(), SECRETS, VIEWS).store)
    assert store == [
        {"op": "test", "path": "/data/a", "value": stored("cw==")},
        {"op": "add", "path": "/data", "value": {"b": [stored("x"), {"c": stored("1")}], "n": None}},
        *patch[2:],
    ]


@pytest.mark.parametrize(
    "body", [b"{}", b'{"op":"add","value":"s"}', b'[{"value":"s","value":"t"}]', b'["s"]', b'"s"', b"x"]
)
def test_a_json_patch_that_is_no_list_of_operations_is_refused(body):
    with pytest.raises(BadGateway):
        mask_json_patch(body, SECRETS, VIEWS)

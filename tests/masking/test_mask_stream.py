"""Watch streams are masked event by event, however the network cut them."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import BadGateway
from holdfast.exchange import Mask
from holdfast.masking import stream
from holdfast.masking.body import mask_event
from holdfast.masking.fingerprint import Fingerprinter, Views
from holdfast.masking.plan import compile_plan
from holdfast.masking.stream import WatchMasker

VIEWS = Views(Fingerprinter(b"k" * 32), "https://issuer", "agent", "secrets")
SECRETS = compile_plan((Mask("secret-values", base64_fields=("$.data.*",)),))

STATUS = {"kind": "Status", "apiVersion": "v1", "code": 410, "message": "too old resource version"}
EVENTS = [
    {"type": "ADDED", "object": {"metadata": {"name": "a"}, "data": {"k": "cw=="}}},
    {"type": "BOOKMARK", "object": {"kind": "Secret", "metadata": {"resourceVersion": "9"}}},
    {"type": "MODIFIED", "object": {"metadata": {"name": "\u00e9\n"}, "data": {"k": "dA=="}}},
    {"type": "ERROR", "object": STATUS},
]
LINES = [json.dumps(event).encode() + b"\n" for event in EVENTS]


def fed(chunks):
    masker = WatchMasker(SECRETS, VIEWS)
    pairs = [*(masker.feed(chunk) for chunk in chunks), masker.finish()]
    return b"".join(caller for caller, _ in pairs), b"".join(store for _, store in pairs), dict(masker.counts)


@given(
    st.lists(st.sampled_from([*LINES, b"\n"]), max_size=6), st.lists(st.integers(0, 10**4), max_size=9), st.booleans()
)
def test_a_stream_is_its_events_masked_one_by_one_however_it_was_cut(lines, places, ended):
    data = b"".join(lines) if ended else b"".join(lines).removesuffix(b"\n")
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    chunks = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    events = [mask_event(line, SECRETS, VIEWS) if line.strip() else None for line in data.split(b"\n")]
    caller, store, counts = fed(chunks)
    assert caller == b"\n".join(event.caller if event else b"" for event in events)
    assert store == b"\n".join(event.store if event else b"" for event in events)
    assert counts.get("secret-values", 0) == sum(event.counts.get("secret-values", 0) for event in events if event)


def test_an_event_comes_out_as_soon_as_it_is_whole():
    masker = WatchMasker(SECRETS, VIEWS)
    assert masker.feed(LINES[3] + LINES[1][:20]) == (LINES[3], LINES[3])
    assert masker.feed(LINES[1][20:]) == (LINES[1], LINES[1])


def test_an_event_may_have_a_carriage_return_between_its_tokens():
    line = b'{"type":"ADDED",\r"object":{"data":\r{"k":"cw=="}}}\r\n'
    caller, store, _ = fed([line])
    assert b"cw==" not in caller + store
    assert caller.endswith(b"}}}\r\n")


@pytest.mark.parametrize("line", [b"not json\n", b'{"type":"ADDED"\n', b"[]\n", LINES[0][:-1] + LINES[1]])
def test_a_line_that_is_no_event_ends_the_stream(line):
    with pytest.raises(BadGateway):
        WatchMasker(SECRETS, VIEWS).feed(LINES[0] + line)


def test_a_stream_that_breaks_off_inside_an_event_does_not_show_its_beginning():
    masker = WatchMasker(SECRETS, VIEWS)
    assert masker.feed(LINES[0][:-5]) == (b"", b"")
    with pytest.raises(BadGateway):
        masker.finish()


@pytest.mark.parametrize("end", [b"", b'"}\n'])
def test_an_event_over_the_cap_ends_the_stream(monkeypatch, end):
    monkeypatch.setattr(stream, "LONGEST_EVENT", 100)
    masker = WatchMasker(SECRETS, VIEWS)
    masker.feed(b'{"type":"')
    with pytest.raises(BadGateway, match="longer than 100 bytes"):
        masker.feed(b"A" * 100 + end)


def test_without_field_rules_nothing_is_parsed_or_held_back():
    masker = WatchMasker(compile_plan((Mask("tokens", patterns=("x",)),)), VIEWS)
    assert masker.feed(b"not j") == (b"not j", b"not j")
    assert masker.finish() == (b"", b"")

"""Text comes out the same however it was cut, and whatever is not matched stays, byte for byte."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.exchange import Mask
from holdfast.masking.fingerprint import Fingerprinter, Views
from holdfast.masking.plan import compile_plan
from holdfast.masking.text import OVERLAP, WINDOW, LineMasker, find_spans, mask_text

VIEWS = Views(Fingerprinter(b"k" * 32), "https://issuer", "agent", "pods/log", "prod", "web")
TOKENS = compile_plan((Mask("tokens", patterns=(r"tok-[a-z0-9]+", r"^BEGIN.*$", r"\bpin=\d+\b")),))


def mask_of(text, rule="tokens", view=1):
    return VIEWS.masks(rule, text, VIEWS.place(), ("text",))[view]


def fed(masker, chunks):
    pairs = [*(masker.feed(chunk) for chunk in chunks), masker.finish()]
    return b"".join(caller for caller, _ in pairs), b"".join(store for _, store in pairs)


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        (b"a tok-12 b", [b"tok-12"]),
        (b"tok-1 tok-2\ntok-3", [b"tok-1", b"tok-2", b"tok-3"]),
        (b"x\nBEGIN secret\ny", [b"BEGIN secret"]),
        (b"x BEGIN y", []),
        (b"\xff\xfetok-12\xff", [b"tok-12"]),
        (b"BEGIN \xff\x00 end\n", [b"BEGIN \xff\x00 end"]),
        (b"pin=12\r\n", [b"pin=12"]),
        (b"pin=12a", []),
        (b"nothing\n\n", []),
        (b"", []),
    ],
)
def test_matches_become_masks_and_all_other_bytes_stay(text, matched):
    expected = text
    for part in matched:
        expected = expected.replace(part, mask_of(part), 1)
    masked = mask_text(text, TOKENS, VIEWS)
    assert masked.store == expected
    assert masked.counts == ({"tokens": len(matched)} if matched else {})


def test_the_caller_sees_other_masks_than_the_store():
    masked = mask_text(b"tok-1", TOKENS, VIEWS)
    assert (masked.caller, masked.store) == (mask_of(b"tok-1", view=0), mask_of(b"tok-1"))


@pytest.mark.parametrize(
    ("patterns", "matched"),
    [
        (("abcd", "cdef"), b"abcdef"),
        (("cdef", "abcd"), b"abcdef"),
        (("abcdef", "cd"), b"abcdef"),
        (("cd", "abcdef"), b"abcdef"),
        (("abc", "def"), b"abcdef"),
        (("[a-f]",), b"abcdef"),
    ],
)
def test_matches_that_overlap_or_touch_become_one_mask(patterns, matched):
    plan = compile_plan(tuple(Mask(f"m{number}", patterns=(pattern,)) for number, pattern in enumerate(patterns)))
    (span,) = find_spans(b"- abcdef -", plan.text)
    assert b"- abcdef -"[span.start : span.end] == matched


@given(st.lists(st.sampled_from([b"tok-1", b" ", b"\n", b"pin=7", b"BEGIN", b"\xff", b"masked:v1:"]), max_size=12))
def test_a_mask_is_not_masked_again(parts):
    once = mask_text(b"".join(parts), TOKENS, VIEWS)
    for view in (once.caller, once.store):
        kept = re.findall(rb"masked:v1:tokens:[0-9a-f]{16}", view)
        again = mask_text(view, TOKENS, VIEWS).store
        assert all(mask in again for mask in kept)


def test_a_mask_inside_a_match_stays_and_the_rest_is_masked():
    mask = mask_of(b"x")
    assert mask_text(b"BEGIN " + mask + b" tail", TOKENS, VIEWS).store == mask_of(b"BEGIN ") + mask + mask_of(b" tail")


@given(st.lists(st.sampled_from([mask_of(b"x"), b"BEGIN", b" ", b"ab", b"\n", b"tok-1"]), max_size=12).map(b"".join))
def test_exactly_the_matched_bytes_outside_masks_are_masked(text):
    plan = compile_plan((Mask("tokens", patterns=("^BEGIN.*$", "[ab]+", "tok-1", ":v1:.")),))
    kept = {at for mask in re.finditer(rb"masked:v1:tokens:[0-9a-f]{16}", text) for at in range(*mask.span())}
    matches = (match for rule in plan.text.rules for match in rule.pattern.finditer(text))
    matched = {at for match in matches for at in range(*match.span())}
    spans = find_spans(text, plan.text)
    assert [at for span in spans for at in range(span.start, span.end)] == sorted(matched - kept)


def test_what_only_looks_like_a_mask_is_masked():
    plan = compile_plan((Mask("tokens", patterns=("tok-[a-z0-9]+",)),))
    assert b"tok-secret" not in mask_text(b"masked:v1:tok-secret:0123456789abcdef", plan, VIEWS).store


PIECES = st.sampled_from(
    [
        b"tok-",
        b"abc123",
        b"\n",
        b" ",
        b"BEGIN",
        b"pin=12",
        b"\r\n",
        b"\xff\xfe",
        b"\xc3\xa9",
        mask_of(b"tok-9"),
        b"-" * 70,
    ]
)
LONG = st.builds(lambda piece, size: piece * (size // len(piece)), PIECES, st.integers(0, 3 * WINDOW))
TEXTS = st.lists(PIECES | PIECES | PIECES | LONG, max_size=12).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.lists(st.integers(0, 10**6), max_size=8))
def test_the_result_does_not_depend_on_how_the_text_was_cut(text, places):
    assert fed(LineMasker(TOKENS, VIEWS), cut(text, places)) == fed(LineMasker(TOKENS, VIEWS), [text])


@settings(max_examples=30, deadline=None)
@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_the_result_does_not_change_byte_by_byte(text):
    single = [text[at : at + 1] for at in range(len(text))]
    assert fed(LineMasker(TOKENS, VIEWS), single) == fed(LineMasker(TOKENS, VIEWS), [text])


PATTERNS = st.sampled_from(
    ["^a", "a$", r"\ba", r"a\s+b", "(?s)a.b", "[^a]b", r"a\n?b", r"\Wb", "(?i)A+", "a|^b$", r"[[:space:]]b", r"\D\D"]
)


@given(PATTERNS, st.text("ab \n-", max_size=20).map(str.encode))
def test_a_pattern_sees_one_line_at_a_time(pattern, text):
    plan = compile_plan((Mask("m", patterns=(pattern,)),))
    lines = b"\n".join(mask_text(line, plan, VIEWS).store for line in text.split(b"\n"))
    assert mask_text(text, plan, VIEWS).store == lines


def test_whole_lines_come_out_at_once_and_the_last_is_held_back():
    masker = LineMasker(TOKENS, VIEWS)
    assert masker.feed(b"one\ntwo tok")[1] == b"one\n"
    assert masker.feed(b"-1 three\nfour")[1] == b"two " + mask_of(b"tok-1") + b" three\n"
    assert masker.finish()[1] == b"four"
    assert masker.counts == {"tokens": 1}


@pytest.mark.parametrize(
    "begin", [WINDOW - OVERLAP - 3, WINDOW - OVERLAP, WINDOW - 3, WINDOW, 2 * WINDOW - OVERLAP - 2]
)
def test_a_match_across_the_edge_of_a_window_is_masked_whole(begin):
    line = b"." * begin + b"tok-secret" + b"." * WINDOW
    assert mask_text(line, TOKENS, VIEWS).store == b"." * begin + mask_of(b"tok-secret") + b"." * WINDOW


@pytest.mark.parametrize("begin", [1, WINDOW - OVERLAP - 3])
def test_a_match_that_reaches_beyond_its_window_is_held_back_and_masked_whole(begin):
    token = b"tok-" + b"a" * (WINDOW - 100)
    line = b"." * begin + token + b"." * WINDOW
    assert mask_text(line, TOKENS, VIEWS).store == b"." * begin + mask_of(token) + b"." * WINDOW


@pytest.mark.parametrize("begin", [WINDOW - OVERLAP - 3, WINDOW - OVERLAP - 30, 2 * WINDOW - 2 * OVERLAP - 9])
def test_a_mask_across_the_edge_of_a_window_stays(begin):
    plan = compile_plan((Mask("tokens", patterns=("[a-f0-9]{8,}",)),))
    line = b"." * begin + mask_of(b"x") + b"." * WINDOW
    assert mask_text(line, plan, VIEWS).store == line


def test_no_more_than_a_window_is_held_back_of_a_line_without_end():
    masker = LineMasker(TOKENS, VIEWS)
    given_out = sum(len(masker.feed(b"." * 1000)[1]) for _ in range(1000))
    assert 1_000_000 - given_out < WINDOW


def test_without_patterns_chunks_pass_as_they_come():
    masker = LineMasker(compile_plan((Mask("fields", fields=("$.data",)),)), VIEWS)
    assert masker.feed(b"tok") == (b"tok", b"tok")
    assert masker.finish() == (b"", b"")


def test_a_pattern_that_ruins_backtracking_engines_takes_no_time():
    plan = compile_plan((Mask("evil", patterns=("(a+)+$",)),))
    assert mask_text(b"a" * 60_000 + b"!", plan, VIEWS).counts == {}

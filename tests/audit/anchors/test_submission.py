"""Submissions to a witness: the text of the specification, one spelling."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.anchors.submission import MOST_HASHES, Submission, parse_submission, write_submission
from holdfast.audit.note import BadNote

# The example of C2SP tlog-witness.
EXAMPLE = (Path(__file__).parents[1] / "vectors" / "submission.txt").read_text("utf-8")
HASH = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw="


def test_the_example_of_the_specification() -> None:
    submission = parse_submission(EXAMPLE)
    assert submission.old_size == 20852014
    assert [len(node) for node in submission.path] == [32] * 4
    assert submission.note.startswith("example.com/behind-the-sofa\n20852163\n")
    assert write_submission(submission) == EXAMPLE


@given(
    st.integers(0, 10**16 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=MOST_HASHES),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_what_is_written_is_read(old_size: int, path: list[bytes], note: str) -> None:
    submission = Submission(old_size, tuple(path), note)
    assert parse_submission(write_submission(submission)) == submission


@given(st.integers(0, len(EXAMPLE)), st.integers(0, 8), st.text(max_size=8))
def test_a_submission_has_one_spelling(place: int, removed: int, added: str) -> None:
    changed = EXAMPLE[:place] + added + EXAMPLE[place + removed :]
    with suppress(BadNote):
        assert write_submission(parse_submission(changed)) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 1",
        "old 1\n",
        "\n\nnote",
        "\nold 1\n\nnote",
        "old\n\nnote",
        "1\n\nnote",
        "old 01\n\nnote",
        "old -1\n\nnote",
        "old  1\n\nnote",
        "old 1 \n\nnote",
        "Old 1\n\nnote",
        "old 11111111111111111\n\nnote",
        "old 1\r\n\r\nnote",
        f"old 1\n{HASH} \n\nnote",
        f"old 1\n{HASH[:-1]}\n\nnote",
        "old 1\nAAAA\n\nnote",
        f"old 1\n{HASH}\nold 1\n\nnote",
        "old 1\n" + f"{HASH}\n" * (MOST_HASHES + 1) + "\nnote",
    ],
)
def test_what_is_no_submission_is_refused(text: str) -> None:
    with pytest.raises(BadNote):
        parse_submission(text)

"""The scratch file when verifying ends early."""

from __future__ import annotations

from holdfast.audit.verify.scratch import Scratch


def test_rows_that_were_not_read_to_their_end_do_not_outlive_the_file() -> None:
    with Scratch() as scratch:
        for name in ("a", "b", "c"):
            scratch.add("caller", (name,))
        rows = scratch.select("SELECT id FROM caller")
        assert next(rows) == ("a",)
    rows.close()  # type: ignore[attr-defined]  # a generator
    assert list(rows) == []

"""Why somebody was given no token: on record every time, in the log once a second."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.console.refusals import Refusals
from holdfast.errors import Unauthorized

if TYPE_CHECKING:
    import pytest

    from holdfast.audit.record import Entry, Record


class Writer:
    """Keeps what is put on record."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def append(self, entry: Entry) -> None:
        self.records.append(entry.record)


async def test_many_refusals_are_few_lines_that_say_how_many(caplog: pytest.LogCaptureFixture) -> None:
    writer, moments = Writer(), iter([5.0, 5.5, 5.999, 6.0, 9.0])
    refusals = Refusals(writer, monotonic=lambda: next(moments))
    for number in range(5):
        refusal = Unauthorized("what a caller is told", f"why_{number}", "what was found")
        await refusals.tell("token-exchange", refusal, datetime.now(UTC))
    assert [told.refusal.why for told in writer.records if told.refusal] == [f"why_{number}" for number in range(5)]
    assert caplog.messages == [
        "refused: token-exchange, why_0; `holdfast identity log` tells more",
        "refused: token-exchange, why_3; 2 more since the line before; `holdfast identity log` tells more",
        "refused: token-exchange, why_4; `holdfast identity log` tells more",
    ]

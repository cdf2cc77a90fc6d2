"""Times as leaves tell them: text in one spelling, whose order is that of time."""

from __future__ import annotations

from datetime import datetime

from holdfast.audit.record import timestamp

TOLERATED_STEP_SECONDS = 2.0


def seconds(time: str) -> float | None:
    """A leaf's time in Unix seconds; None when it is not spelt as `record.timestamp` spells it."""
    try:
        moment = datetime.fromisoformat(time)
        return moment.timestamp() if moment.tzinfo is not None and timestamp(moment) == time else None
    except (ValueError, OverflowError):  # the latter: a year that UTC does not have
        return None

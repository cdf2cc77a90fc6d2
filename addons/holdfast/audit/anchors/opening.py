"""The anchors that the settings ask for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from holdfast.audit.anchors.file import FileAnchor
from holdfast.audit.anchors.publisher import Anchor, Publisher
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast.settings import Anchors

log = logging.getLogger(__name__)


def open_publisher(settings: Anchors, latest: Callable[[], Sequence[str]]) -> Publisher:
    """Make the publisher, with the anchors; its `start` is still to be called. Raises ConfigurationError."""
    return Publisher(
        latest,
        open_anchors(settings),
        interval_seconds=settings.interval_seconds,
        alarm_seconds=settings.alarm_seconds,
    )


def open_anchors(settings: Anchors) -> list[Anchor]:
    """Make the anchors. Raises ConfigurationError.

    A place that cannot be reached now keeps nobody from starting: it is tried again with every checkpoint, and its
    lag tells.
    """
    anchors: list[Anchor] = []
    if settings.file is not None:
        anchors.append(FileAnchor(settings.file))
    if settings.bucket is not None:
        # What this loads takes longer than all the rest of opening the record.
        from holdfast.audit.anchors.bucket import open_bucket

        bucket = open_bucket(settings.bucket)
        try:
            bucket.check()
        except Unavailable as error:
            log.warning("the anchor bucket cannot be reached yet: %s", error)
        anchors.append(bucket)
    if settings.timestamp is not None:
        from holdfast.audit.anchors.timestamp import open_timestamp

        anchors.append(open_timestamp(settings.timestamp))
    return anchors

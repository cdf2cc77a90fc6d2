"""The anchors that the settings ask for, and the publisher that feeds them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from holdfast.audit.anchors.file import FileAnchor
from holdfast.audit.anchors.publisher import Anchor, Publisher
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.anchors.bucket import BucketAnchor
    from holdfast.audit.anchors.source import TreeSource
    from holdfast.settings import Settings
    from holdfast.settings.audit import Anchors, Bucket

COSIGNED = "cosigned.notes"
"""The file under stateDir with the checkpoints that witnesses have cosigned, for auditors (see `file`)."""

log = logging.getLogger(__name__)


def open_publisher(settings: Settings, source: TreeSource) -> Publisher:
    """Make the publisher, with the anchors; its `start` is still to be called. Raises ConfigurationError."""
    anchors = settings.audit.anchors
    return Publisher(
        source.latest_checkpoints,
        open_anchors(anchors, source, settings.state_dir / COSIGNED),
        interval_seconds=anchors.interval_seconds,
        alarm_seconds=anchors.alarm_seconds,
    )


def open_anchors(settings: Anchors, source: TreeSource, cosigned: Path) -> list[Anchor]:
    """Make the anchors; `cosigned` is the file for what witnesses sign. Raises ConfigurationError.

    A place that cannot be reached now keeps nobody from starting: it is tried again with every checkpoint, and its
    lag tells.
    """
    # Each is loaded where it is asked for: together they take longer than all the rest of opening the record.
    anchors: list[Anchor] = []
    if settings.file is not None:
        anchors.append(FileAnchor(settings.file))
    if settings.witnesses:
        from holdfast.audit.anchors.witness import open_witness

        keep = FileAnchor(cosigned).publish
        anchors += (open_witness(witness, source, keep) for witness in settings.witnesses)
    if settings.bucket is not None:
        anchors.append(_open_bucket(settings.bucket))
    if settings.timestamp is not None:
        from holdfast.audit.anchors.timestamp import open_timestamp

        anchors.append(open_timestamp(settings.timestamp))
    return anchors


def _open_bucket(settings: Bucket) -> BucketAnchor:
    from holdfast.audit.anchors.bucket import open_bucket

    bucket = open_bucket(settings)
    try:
        bucket.check()
    except Unavailable as error:
        log.warning("the anchor bucket cannot be reached yet: %s", error)
    return bucket

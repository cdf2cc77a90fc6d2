"""Watch streams: newline-delimited JSON events, masked one by one.

The API server ends each event with a newline and writes none inside one (apimachinery
`pkg/runtime/serializer/json`, `pkg/util/framer`). An event is given out whole, so a stream that breaks off
inside one, or holds what cannot be read, ends there for the caller.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from holdfast.errors import BadGateway
from holdfast.masking.body import MaskedBody, mask_event

if TYPE_CHECKING:
    from holdfast.masking.fingerprint import Views
    from holdfast.masking.plan import Plan

LONGEST_EVENT = 16 << 20
"""Bytes; etcd holds objects of about 1.5 MiB, and JSON spells them longer."""


class WatchMasker:
    """Masks one watch stream; `counts` has the masks made so far, by rule."""

    def __init__(self, plan: Plan, views: Views) -> None:
        self._plan = plan
        self._views = views
        self._held = bytearray()
        self.counts: Counter[str] = Counter()

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Take the next bytes; return the events they complete, for the caller and for the store.

        Raises BadGateway for an event that is too long or cannot be read; nothing after it may be shown.
        """
        if self._plan.fields is None:
            return chunk, chunk
        events = self._completed(chunk)
        if len(self._held) > LONGEST_EVENT or any(len(event) > LONGEST_EVENT for event in events):
            raise BadGateway(f"A watch event is longer than {LONGEST_EVENT} bytes; the watch was ended.")
        return _joined([self._masked(event) for event in events])

    def finish(self) -> tuple[bytes, bytes]:
        """Return both views of a last event without its newline. Raises BadGateway if it is not whole."""
        last = self._masked(bytes(self._held))
        self._held.clear()
        return last.caller, last.store

    def _completed(self, chunk: bytes) -> list[bytes]:
        last = chunk.rfind(b"\n") + 1
        if not last:
            self._held += chunk
            return []
        whole = bytes(self._held) + chunk[:last]
        self._held = bytearray(chunk[last:])
        return [event + b"\n" for event in whole.split(b"\n")[:-1]]

    def _masked(self, event: bytes) -> MaskedBody:
        if not event.strip():
            return MaskedBody(event, event, {})
        masked = mask_event(event, self._plan, self._views)
        self.counts.update(masked.counts)
        return masked


def _joined(events: list[MaskedBody]) -> tuple[bytes, bytes]:
    return b"".join(event.caller for event in events), b"".join(event.store for event in events)

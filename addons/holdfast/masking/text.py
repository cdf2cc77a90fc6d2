"""Text, such as logs, masked line by line for the caller and for the store.

Every pattern is matched against the whole text; where matches overlap or touch, the stretch
they cover together becomes one mask in the name of the rule that begins it, so the order of rules in a policy
lets nothing through. A mask that is already there stays as it is.

Text that arrives in pieces comes out the same however it was cut: a line is given out when its end has come.
A line longer than 64 KiB is masked in windows of that size, of which the last 4 KiB are held back as the
beginning of the next, and a match that reaches into them is held back whole. In such a line a match longer than
what is held back can be missed, or masked in part, where one window ends. No pattern matches across lines.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from holdfast.masking.body import MaskedBody
from holdfast.masking.fingerprint import MASK, PREFIX, Views

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.masking.plan import Plan, TextPlan

WINDOW = 64 << 10
"""Bytes of one line that are masked at once."""

OVERLAP = 4 << 10
"""Bytes at the end of a window that are masked with the next one."""

_PATH = ("text",)


class Span(NamedTuple):
    """A stretch of bytes to mask, and the name of the rule that begins it."""

    start: int
    end: int
    rule: str


def mask_text(data: bytes, plan: Plan, views: Views) -> MaskedBody:
    """Mask the matches of the plan's patterns in `data`; bytes that are not UTF-8 stay as they are."""
    masker = LineMasker(plan, views)
    ahead, last = masker.feed(data), masker.finish()
    return MaskedBody(ahead[0] + last[0], ahead[1] + last[1], masker.counts)


class LineMasker:
    """Masks one stream of text; `counts` has the masks made so far, by rule."""

    def __init__(self, plan: Plan, views: Views) -> None:
        self._text = plan.text
        self._views = views
        self._place = views.place()
        self._held = bytearray()
        self.counts: Counter[str] = Counter()

    def feed(self, chunk: bytes) -> tuple[bytes, bytes]:
        """Take the next bytes; return what can be shown of them to the caller, and what can be stored."""
        if self._text is None:
            return chunk, chunk
        self._held += chunk
        return _joined(self._masked_ahead(self._text))

    def finish(self) -> tuple[bytes, bytes]:
        """Return both views of what was held back, at the end of the stream."""
        if self._text is None:
            return b"", b""
        held = self._take(len(self._held))
        return self._masked(held, find_spans(held, self._text))

    def _masked_ahead(self, text: TextPlan) -> Iterator[tuple[bytes, bytes]]:
        while True:
            if lines := self._held.rfind(b"\n", 0, WINDOW) + 1:
                block = self._take(lines)
                yield self._masked(block, find_spans(block, text))
            elif len(self._held) >= WINDOW:
                yield self._window(text)
            else:
                return

    def _window(self, text: TextPlan) -> tuple[bytes, bytes]:
        """Mask the first window of a line that is longer, up to where nothing is cut in two."""
        window = bytes(self._held[:WINDOW])
        spans = find_spans(window, text)
        cut = WINDOW - OVERLAP
        for start, end in (*_masks_in(window, text), *((span.start, span.end) for span in spans)):
            if start < cut < end:
                cut = start or end
        return self._masked(self._take(cut), [span for span in spans if span.end <= cut])

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    def _masked(self, data: bytes, spans: list[Span]) -> tuple[bytes, bytes]:
        caller: list[bytes] = []
        store: list[bytes] = []
        done = 0
        for start, end, rule in spans:
            masks = self._views.masks(rule, data[start:end], self._place, _PATH)
            caller += (data[done:start], masks[0])
            store += (data[done:start], masks[1])
            done = end
            self.counts[rule] += 1
        return b"".join((*caller, data[done:])), b"".join((*store, data[done:]))


def find_spans(data: bytes, text: TextPlan) -> list[Span]:
    """Return the stretches of `data` to mask, in order and apart from each other and from masks already there."""
    if text.any_of.search(data) is None:
        return []
    found = [
        Span(match.start(), match.end(), rule.name) for rule in text.rules for match in rule.pattern.finditer(data)
    ]
    return _without(_masks_in(data, text), _united(sorted(span for span in found if span.start < span.end)))


def _united(spans: list[Span]) -> list[Span]:
    united: list[Span] = []
    for span in spans:
        if united and span.start <= united[-1].end:
            united[-1] = united[-1]._replace(end=max(united[-1].end, span.end))
        else:
            united.append(span)
    return united


def _masks_in(data: bytes, text: TextPlan) -> list[tuple[int, int]]:
    if PREFIX not in data:
        return []
    return [match.span() for match in MASK.finditer(data) if match["name"].decode() in text.names]


def _without(holes: list[tuple[int, int]], spans: list[Span]) -> list[Span]:
    """Return what is left of `spans` outside `holes`; both are in order and apart, so one pass over both does."""
    pieces: list[Span] = []
    waiting = deque(holes)
    for start, end, rule in spans:
        while waiting and waiting[0][0] < end:
            pieces.append(Span(start, waiting[0][0], rule))
            start = max(start, waiting[0][1])
            if waiting[0][1] > end:
                break
            waiting.popleft()
        pieces.append(Span(start, end, rule))
    return [piece for piece in pieces if piece.start < piece.end]


def _joined(views: Iterator[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    pairs = list(views)
    return b"".join(caller for caller, _ in pairs), b"".join(store for _, store in pairs)

"""Masks' paths compiled to one state machine, so that a body is walked once whatever the number of rules.

A state is what the rules still hope for at a value: it is reached by the keys and indexes on the way down from
the object's root, and says what to do with a scalar there and where each child leads. The machine is the
subset construction over the paths' steps (Aho, Lam, Sethi, Ullman: Compilers, 3.7.1), built once for a policy.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from holdfast.masking.path import Step, Wild

EXEMPT: tuple[tuple[Step, ...], ...] = (
    ("apiVersion",),
    ("kind",),
    ("metadata", "uid"),
    ("metadata", "resourceVersion"),
    ("metadata", "continue"),
    ("metadata", "annotations", "k8s.io/initial-events-end"),
)
"""Never masked: what clients need to decode an object, page through a list and keep a watch in step."""

LAST_APPLIED: tuple[Step, ...] = ("metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration")
"""The object once more, as JSON in a string: the same rules apply inside, and `kubectl apply` needs it as JSON."""

_MOST_STATES = 4096


@dataclass(frozen=True, slots=True)
class FieldRule:
    """What becomes of a scalar: `name` goes into the mask, `base64` keeps the field valid base64."""

    name: str
    base64: bool = False


class State:
    """One state. Not changed after `build_states` returns it.

    `rule` masks a scalar here, and every scalar below; `opens` reads a string here as JSON. A child's state is
    in `members` by key or `elements` by index, else `other`; `is_dead` says that nothing here or below is masked.
    `needs` has the keys, as JSON strings, one of which must come below for anything to be masked; it is empty
    when that cannot be told.
    """

    __slots__ = ("elements", "is_dead", "members", "needs", "opens", "other", "rule")

    def __init__(self, *, rule: FieldRule | None = None, opens: bool = False, is_dead: bool = False) -> None:
        self.rule = rule
        self.opens = opens
        self.is_dead = is_dead
        self.needs: tuple[bytes, ...] = ()
        self.members: dict[str, State] = {}
        self.elements: dict[int, State] = {}
        self.other = self


type _Positions = frozenset[tuple[int, int]]
"""How far each path has come: (number of the path, steps taken)."""


class TooManyStates(ValueError):
    """The paths together need more states than any policy does."""


def build_states(rules: list[tuple[FieldRule, tuple[Step, ...]]]) -> State:
    """Return the state of the object's root. Raises TooManyStates."""
    return _Builder(rules).root()


class _Builder:
    def __init__(self, rules: list[tuple[FieldRule, tuple[Step, ...]]]) -> None:
        ordered = sorted(rules, key=lambda rule: not rule[0].base64)
        self._rules = [rule for rule, _ in ordered]
        self._paths = [*(steps for _, steps in ordered), LAST_APPLIED, *EXEMPT]
        self._opener = len(ordered)
        self._states: dict[_Positions, State] = {}
        self._unlinked: list[_Positions] = []

    def root(self) -> State:
        root = self._state(self._closed({(number, 0) for number in range(len(self._paths))}))
        while self._unlinked:
            positions = self._unlinked.pop()
            self._link(self._states[positions], positions)
        return root

    def _state(self, positions: _Positions) -> State:
        if positions not in self._states:
            if len(self._states) >= _MOST_STATES:
                raise TooManyStates("the paths combine in too many ways; use fewer `..` and `*` steps")
            self._states[positions] = state = self._alone(positions)
            if not state.is_dead:
                self._unlinked.append(positions)
        return self._states[positions]

    def _alone(self, positions: _Positions) -> State:
        ended = sorted(number for number, taken in positions if taken == len(self._paths[number]))
        if any(number > self._opener for number in ended) or not self._can_mask(positions):
            return State(is_dead=True)
        rule = self._rules[ended[0]] if ended and ended[0] < self._opener else None
        return State(rule=rule, opens=rule is None and self._opener in ended)

    def _can_mask(self, positions: _Positions) -> bool:
        return any(number <= self._opener for number, _ in positions)

    def _needs(self, positions: _Positions) -> tuple[bytes, ...]:
        hopes = [self._paths[number][taken:] for number, taken in positions if number <= self._opener]
        keys = {next((step for step in reversed(hope) if isinstance(step, str)), None) for hope in hopes}
        return () if None in keys else tuple(msgspec.json.encode(key) for key in keys)

    def _link(self, state: State, positions: _Positions) -> None:
        wanted = {self._paths[number][taken] for number, taken in positions if taken < len(self._paths[number])}
        state.members = {step: self._after(positions, step) for step in wanted if isinstance(step, str)}
        state.elements = {step: self._after(positions, step) for step in wanted if isinstance(step, int)}
        state.needs = self._needs(positions)
        state.other = self._after(positions, Wild.CHILD)

    def _after(self, positions: _Positions, child: Step) -> State:
        return self._state(self._closed({p for at in positions if (p := self._moved(at, child)) is not None}))

    def _moved(self, at: tuple[int, int], child: Step) -> tuple[int, int] | None:
        number, taken = at
        if taken == len(self._paths[number]):
            return at if number < self._opener else None
        step = self._paths[number][taken]
        if step is Wild.DEPTH:
            return at
        return (number, taken + 1) if step is Wild.CHILD or step == child else None

    def _closed(self, positions: set[tuple[int, int]]) -> _Positions:
        """Add what `..` reaches with no level at all."""
        for number, taken in list(positions):
            path = self._paths[number]
            if taken < len(path) and path[taken] is Wild.DEPTH:
                positions.add((number, taken + 1))
        return frozenset(positions)

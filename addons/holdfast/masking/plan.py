"""Masks compiled once: the state machine for fields, RE2 for text.

RE2 runs in time linear in the text whatever the pattern (https://swtch.com/~rsc/regexp/regexp1.html), so a
policy's pattern cannot stop the gateway; Python's `re` never sees one. Patterns match bytes, within one line:
text comes in chunks cut anywhere, and a log need not be valid UTF-8.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import re2

from holdfast.errors import ConfigurationError
from holdfast.masking.path import Step, parse_path
from holdfast.masking.states import FieldRule, State, TooManyStates, build_states

if TYPE_CHECKING:
    from holdfast.exchange import Mask

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TEXT_ANCHOR = re.compile(r"(?<!\\)(?:\\\\)*\\[AzC]|\(\?[imsU]*-[isU]*m")


@dataclass(frozen=True, slots=True, eq=False)
class TextRule:
    """One pattern of a mask, compiled by RE2 to match bytes within a line."""

    name: str
    pattern: Any


@dataclass(frozen=True, slots=True, eq=False)
class FieldPlan:
    """Where fields are: `root` is the state of an object's root, `names` the names of all masks.

    `everything` masks a whole value whose parts cannot be told apart, in the name of the first mask.
    """

    root: State
    everything: FieldRule
    names: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class TextPlan:
    """What text to look for: `any_of` finds whether any of `rules` matches at all, `names` are those of all masks."""

    rules: tuple[TextRule, ...]
    any_of: Any
    names: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What to mask. Without `fields` no body need be parsed, without `text` no text need be scanned."""

    fields: FieldPlan | None = None
    text: TextPlan | None = None


@functools.lru_cache(maxsize=256)
def compile_plan(masks: tuple[Mask, ...]) -> Plan:
    """Compile `masks`. Raises ConfigurationError that names the mask, the path or pattern, and the reason."""
    names = frozenset(_checked_name(mask.name) for mask in masks)
    fields = [rule for mask in masks for rule in _field_rules(mask)]
    patterns = [(mask.name, pattern) for mask in masks for pattern in mask.patterns]
    return Plan(_plan_fields(fields, names) if fields else None, _plan_text(patterns, names) if patterns else None)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"mask {name!r}: a mask's name is written into what it masks; expected 1 to 63 letters, digits, "
            "dots, dashes and underscores, beginning with a letter or digit."
        )
    return name


def _field_rules(mask: Mask) -> list[tuple[FieldRule, tuple[Step, ...]]]:
    return [
        (FieldRule(mask.name, base64=base64), _steps(mask.name, path))
        for paths, base64 in ((mask.fields, False), (mask.base64_fields, True))
        for path in paths
    ]


def _steps(name: str, path: str) -> tuple[Step, ...]:
    try:
        return parse_path(path)
    except ValueError as error:
        raise ConfigurationError(f"mask {name}: path {path!r}: {error}.") from error


def _plan_fields(rules: list[tuple[FieldRule, tuple[Step, ...]]], names: frozenset[str]) -> FieldPlan:
    try:
        return FieldPlan(build_states(rules), FieldRule(rules[0][0].name), names)
    except TooManyStates as error:
        raise ConfigurationError(f"masks {', '.join(sorted({rule.name for rule, _ in rules}))}: {error}.") from error


def _plan_text(patterns: list[tuple[str, str]], names: frozenset[str]) -> TextPlan:
    rules = tuple(_text_rule(name, pattern) for name, pattern in patterns)
    return TextPlan(rules, _compiled("|".join(f"(?:{pattern})" for _, pattern in patterns)), names)


def _text_rule(name: str, pattern: str) -> TextRule:
    reason = _why_refused(pattern)
    if reason:
        raise ConfigurationError(f"mask {name}: pattern {pattern!r}: {reason}.")
    return TextRule(name, _compiled(pattern))


def _why_refused(pattern: str) -> str:
    if not pattern.isascii():
        return r"patterns match bytes; expected ASCII, with \xHH for each byte of other text"
    if _TEXT_ANCHOR.search(pattern):
        return r"text is masked line by line, so \A, \z, \C and (?-m) cannot be used; use ^ and $"
    try:
        return "it matches the empty text, so it would mask nothing" if _compiled(pattern).search(b"") else ""
    except re2.error as error:
        return f"it is not an RE2 pattern: {error.args[0].decode('utf-8', 'replace')}"


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_nl = True
    options.log_errors = False
    return re2.compile(b"(?m)" + pattern.encode("ascii"), options)

"""Field selectors, as far as naming one object goes: `metadata.name=web` asks for that object alone.

Follows k8s.io/apimachinery `pkg/fields/selector.go`: terms are separated by commas, sorted, and split at the
first `!=`, `==` or `=`; in a value a backslash escapes itself, the comma and the equals sign.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TERM = re.compile(r"(?:\\.|[^\\,])+\\?|\\", re.DOTALL)
_OPERATOR = re.compile(r"!=|==|=")
_VALUE = re.compile(r"(?:[^\\,=]|\\[\\,=])*")
_ESCAPED = re.compile(r"\\(.)")


class Requirement(NamedTuple):
    """One term of a selector; `equal` is false for `!=`."""

    field: str
    equal: bool
    value: str


def parse_field_selector(text: str) -> tuple[Requirement, ...] | None:
    """Parse a selector into its requirements, in Kubernetes' order; None where the API server sees an error."""
    terms = [_parse_term(term) for term in sorted(_TERM.findall(text))]
    requirements = tuple(term for term in terms if term is not None)
    return requirements if len(requirements) == len(terms) else None


def exact_match(requirements: tuple[Requirement, ...], field: str) -> str | None:
    """Return the value that `field` must have, or None when the selector leaves it open."""
    return next((term.value for term in requirements if term.equal and term.field == field), None)


def _parse_term(term: str) -> Requirement | None:
    operator = _OPERATOR.search(term)
    if operator is None:
        return None
    value = term[operator.end() :]
    if not _VALUE.fullmatch(value):
        return None
    return Requirement(term[: operator.start()], operator.group() != "!=", _ESCAPED.sub(r"\1", value))

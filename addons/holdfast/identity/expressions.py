"""CEL, as AuthenticationConfiguration uses it: one expression over one variable, compiled once.

The evaluator is cel-expr-python, the CEL project's own (https://github.com/cel-expr/cel-python): it checks types
when an expression is compiled, so a fault is found before the gateway listens. Here are the core language with its
macros, those over two variables too, optional values, and the functions for strings, sets and lists. Of what the
API server's environment adds (k8s.io/apiserver pkg/cel/library), the libraries for URLs, IP addresses, CIDRs,
quantities, semantic versions, formats, Kubernetes' own for lists (`isSorted`, `sum`) and regular expressions other
than `matches` are not; an expression that uses them is refused when it is compiled, by the name of the function. So
are escaped names (`claims.kubernetes__dot__io`): write `claims["kubernetes.io"]`.

Numbers of a token's JSON are doubles, as in the API server, and compare with whole numbers:
`claims.exp - claims.iat <= 3600`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import cel_expr_python.cel as cel

CLAIMS, USER = "claims", "user"
ANYTHING = "DYN"
BOOLEAN = frozenset({"BOOL", ANYTHING})
TEXT = frozenset({"STRING", ANYTHING})
TEXTS = frozenset({"STRING", "LIST", "NULL", ANYTHING})
"""What an expression may evaluate to: names of CEL types."""

LONGEST_EXPRESSION = 4096

_USER_FIELDS = frozenset({"username", "uid", "groups", "extra"})

_REFUSED_LIBRARIES = {
    "URLs": ("url", "isURL"),
    "IP addresses and CIDRs": ("ip", "isIP", "cidr", "isCIDR"),
    "quantities": ("quantity", "isQuantity"),
    "semantic versions": ("semver", "isSemver"),
    "formats": ("named",),
    "lists that Kubernetes adds": ("isSorted", "sum"),
    "regular expressions": ("find", "findAll"),
}
_REFUSED = {name: library for library, names in _REFUSED_LIBRARIES.items() for name in names}

_UNDECLARED = re.compile(r"^(?:INVALID_ARGUMENT: )?ERROR: <input>:(\d+:\d+: undeclared reference to '(\w+)')", re.M)
_FIELD = re.compile(r"\buser\s*\.\s*\??\s*(\w+)")
_ESCAPED = re.compile(r"\b\w*__(?:dot|dash|slash|underscores)__\w*|\.__\w+__")
_EXTENSIONS = ("optional", "strings", "sets", "lists", "two-var-comprehensions")
_CONFIGURATION = cel.NewEnvConfigFromYaml("extensions:" + "".join(f"\n- name: {name}" for name in _EXTENSIONS))
_ENVIRONMENTS = {
    variable: cel.NewEnv(config=_CONFIGURATION, variables={variable: cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})
    for variable in (CLAIMS, USER)
}


class NotEvaluated(Exception):
    """An expression has no value for these claims: one is missing, or of another type."""


class Values:
    """A variable's value, ready for any number of expressions over it."""

    def __init__(self, variable: str, value: Mapping[str, Any]) -> None:
        self._variable, self._value = variable, value

    @cached_property
    def activation(self) -> cel.Activation:
        """The value as the evaluator takes it; made when it is first asked for. Raises NotEvaluated."""
        return _ENVIRONMENTS[self._variable].Activation({self._variable: _thaw(self._value)})


class Expression:
    """One compiled expression."""

    def __init__(self, text: str, variable: str, kinds: frozenset[str], setting: str = "") -> None:
        """`variable` is CLAIMS or USER, `setting` where it stands. Raises ValueError with what is wrong with it."""
        self.text = text
        self.setting = setting
        if len(text) > LONGEST_EXPRESSION:
            raise ValueError(f"is longer than {LONGEST_EXPRESSION} characters")
        escaped = _ESCAPED.search(text)
        if escaped is not None:
            raise ValueError(f'has the escaped name {escaped[0]}; write `["..."]` with the name as it is')
        if variable == USER and not set(_FIELD.findall(text)) <= _USER_FIELDS:
            raise ValueError(f"asks for a field that user has not; it has {', '.join(sorted(_USER_FIELDS))}")
        try:
            self._expression = _ENVIRONMENTS[variable].compile(text)
        except RuntimeError as error:
            raise ValueError(_find_function(text, error) or _first_fault(error)) from error
        kind = self._expression.return_type().name()
        if _kind(kind) not in kinds:
            raise ValueError(f"evaluates to {kind}, expected {' or '.join(sorted(kinds - {ANYTHING}))}")

    def reads(self, claim: str) -> bool:
        """Whether the expression names this claim, as `claims.NAME` or in quotes."""
        return re.search(rf"[.?'\"]\s*{re.escape(claim)}\b", self.text) is not None

    def evaluate(self, values: Values) -> Any:
        """The value as Python has it. Raises NotEvaluated."""
        activation = values.activation
        try:
            found = self._expression.eval(activation)
            is_error = found.type() == cel.Type.ERROR
            value = found.value() if is_error else found.plain_value()
        except RuntimeError as error:  # the evaluator bounds how long the loops of an expression take
            raise NotEvaluated("it takes too long for these claims") from error
        except (TypeError, SystemError) as error:  # the library has no Python value for an optional one
            raise NotEvaluated("it is a value that may be absent; give one with orValue") from error
        if is_error:
            raise NotEvaluated(str(value))
        return value


def _kind(type_name: str) -> str:
    """`LIST` of `LIST<STRING>`."""
    return type_name.partition("<")[0]


def _find_function(text: str, error: RuntimeError) -> str:
    """Why a function that the text calls is unknown; empty where the fault is another.

    The compiler names the arguments of an unknown macro first, which are not what is wrong.
    """
    called = ((place, name) for place, name in _UNDECLARED.findall(str(error)) if re.search(rf"\b{name}\s*\(", text))
    for place, name in called:
        if library := _REFUSED.get(name):
            return f"{place}: the library for {library} is not supported here"
        return f"{place}: there is no such function or macro here"
    return ""


def _first_fault(error: RuntimeError) -> str:
    """The compiler's first line, without its own prefixes."""
    line = str(error).splitlines()[0]
    return line.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: <input>:")


def _thaw(value: Any) -> Any:
    match value:
        case bool():
            return value
        case int():
            return float(value)
        case str() if "\0" in value:  # the library would take what stands before it for all of it
            raise NotEvaluated("a text has a NUL in it")
        case Mapping():
            return {_thaw(key): _thaw(item) for key, item in value.items()}
        case tuple() | list():
            return [_thaw(item) for item in value]
        case _:
            return value

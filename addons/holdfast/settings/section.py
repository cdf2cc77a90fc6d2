"""What all settings share: strict sections, paths that are relative to their file, and the reading of YAML.

A fault is one sentence with file, field, value and what was expected.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping of keys and values",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number, and a smaller one",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_type": "a mapping of keys and values",
    "path_type": "the path of a file or folder",
    "string_too_short": "text that is not empty",
    "string_type": "text; where YAML takes it for something else, in quotes",
    "too_short": "a list with at least one entry",
    "tuple_type": "a list",
}
"""By pydantic's types of errors (https://docs.pydantic.dev/latest/errors/validation_errors/), with its context."""


class Misfit(ValueError):
    """A value deep in a section that does not fit another one: the section as a whole would show too much."""

    def __init__(self, place: str, found: object, expected: str) -> None:
        """`place` is the value's name, from the section on: `saml.0.tokenURL`."""
        super().__init__(expected)
        self.place, self.found = place, found


def matching(pattern: str, words: str) -> AfterValidator:
    """Text that matches the whole of a pattern, which is told in `words`."""
    compiled = re.compile(pattern)

    def match(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(match)


Name = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}",
        "at most 64 letters, digits and any of `.`, `_`, `:` and `-`, of which a letter or digit comes first",
    ),
]
"""Clusters and replicas are called so: nothing that a URL, a note or JSON would write otherwise."""

ServiceAddress = Annotated[
    str, matching(r"https?://[^@]+", "an address that begins with https:// or http://, without user name or password")
]


def _resolve(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path.expanduser()).absolute()


FilePath = Annotated[Path, AfterValidator(_resolve)]


class Section(BaseModel):
    """The strictness that every section shares: camelCase keys, nothing unknown, nothing changed later."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True)


def read_file(file: Path) -> bytes:
    """The bytes of a file that a setting names. Raises ConfigurationError when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from error


def read_yaml(file: Path) -> Any:
    """Parse one YAML 1.2 document; duplicate keys, tags and syntax errors raise ConfigurationError."""
    try:
        return YAML(typ="safe", pure=True).load(read_file(file).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: is not UTF-8 text (byte {error.start}).") from error
    except YAMLError as error:
        raise ConfigurationError(f"{file}: is not valid YAML: {_first_line(error)}") from error


def parse_model[M: BaseModel](model: type[M], value: Any, file: Path) -> M:
    """Check `value` against `model`; the first fault becomes one sentence with file, field, value, expectation."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file}: expected a mapping of settings, found {_shown(value)}.")
    try:
        return model.model_validate(value, context={"folder": file.absolute().parent}, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ConfigurationError(f"{file}: {describe_fault(error.errors(include_url=False)[0])}.") from error


def describe_fault(fault: ErrorDetails) -> str:
    """One of pydantic's errors in words that take no knowledge of Python: field, value, expectation."""
    place, found = [str(part) for part in fault["loc"]], fault.get("input")
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, Misfit):
        place, found = [*place, cause.place], cause.found
    field = ".".join(place) or "the file"
    if fault["type"] == "extra_forbidden":
        return f"{field}: there is no such key; check its spelling"
    if fault["type"] == "missing":
        return f"{field}: is missing"
    return f"{field}: found {_shown(found)}; expected: {_expectation(field, fault)}"


def _expectation(field: str, fault: ErrorDetails) -> str:
    if fault["type"] in {"int_parsing", "int_type"} and field.endswith("Bytes"):
        return "a number of bytes, as 1000000000"
    if fault["type"] in _EXPECTED:
        return _EXPECTED[fault["type"]].format_map(fault.get("ctx", {}))
    told = fault["msg"].removeprefix("Value error, ")
    return f"{told[:1].lower()}{told[1:]}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _first_line(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})." if mark else f"{problem}."

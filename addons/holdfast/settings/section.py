"""What all settings share: strict sections, paths that are relative to their file, and the reading of YAML.

A fault is one sentence with file, field, value and what was expected.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from holdfast.errors import ConfigurationError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
"""Clusters and replicas are called so: nothing that a URL, a note or JSON would write otherwise."""


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
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(_sentence(file, dict(first))) from error


def _sentence(file: Path, fault: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in fault["loc"]) or "the file"
    expected = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{file}: {field}: there is no such key; check its spelling."
    if fault["type"] == "missing":
        return f"{file}: {field}: is missing."
    if fault["type"] in {"int_parsing", "int_type"} and field.endswith("Bytes"):
        expected = "a number of bytes, as 1000000000"
    return f"{file}: {field}: found {_shown(fault.get('input'))}; expected: {expected[:1].lower()}{expected[1:]}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _first_line(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})." if mark else f"{problem}."

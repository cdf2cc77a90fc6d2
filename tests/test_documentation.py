"""The README names every setting and every command; what it leaves out is listed in one message."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
import typer
from pydantic import BaseModel

from holdfast.cli import app
from holdfast.policy.authorizer import load_policies
from holdfast.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

README = Path(__file__).parent.parent / "README.md"
PACKAGE = README.parent / "addons" / "holdfast"


def every_setting(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted camelCase names of the values in the file, those in lists too: `identity.jwt.issuer.url`."""
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        sections = list(find_sections(field.annotation))
        for section in sections:
            yield from every_setting(section, here)
        if not sections:
            yield ".".join(here)


def find_sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from find_sections(argument)


def every_command(command: Any, path: str) -> Iterator[str]:
    """`holdfast serve`, `holdfast audit list`: what can be run; a group only where it runs by itself."""
    members = getattr(command, "commands", {})
    if not members or command.invoke_without_command:
        yield path
    for name, member in members.items():
        yield from every_command(member, f"{path} {name}")


def require_all(names: Iterable[str], shapes: str) -> None:
    """Fail with everything that README.md lacks, each name in the shape in which it is looked for."""
    text = README.read_text(encoding="utf-8")
    wanted = [shapes.format(name) for name in names]
    missing = [shape for shape in wanted if re.search(rf"{re.escape(shape)}(?![\w-])", text) is None]
    assert not missing, f"README.md lacks {len(missing)} of {len(wanted)}:\n" + "\n".join(missing)


def test_the_walk_sees_settings_at_every_depth() -> None:
    assert {"cluster", "listen.certificateAuthority", "identity.jwt.issuer.jwksFile"} <= set(every_setting())


def test_every_setting_is_documented() -> None:
    require_all(every_setting(), "`{}`")


def test_every_command_is_documented() -> None:
    require_all(every_command(typer.main.get_command(app), "holdfast"), "{}")


def every_package() -> Iterator[Path]:
    """Those of our own modules, not that of the database's revisions, which have no names."""
    for file in sorted(PACKAGE.rglob("__init__.py")):
        if "migrations" not in file.parts:
            yield file.parent


@pytest.mark.parametrize("package", list(every_package()), ids=lambda package: str(package.relative_to(PACKAGE.parent)))
def test_the_map_of_a_package_names_every_module(package: Path) -> None:
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
    modules = {file.stem for file in package.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
    told = set(re.findall(r"\w+", text))
    assert modules - {"__init__", "__main__"} - told == set()


def test_the_policy_that_is_shown_can_be_loaded(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(apiVersion: holdfast.dev/v1\n.*?)```", README.read_text(encoding="utf-8"), re.S)
    file = tmp_path / "example.yaml"
    file.write_text(example, encoding="utf-8")
    assert [mask.mask.name for mask in load_policies([file]).masks] == ["secret-values", "passwords-in-logs"]

"""The cached path: an answer without asking anybody and without importing much, or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.login.cache import TokenCache, Tokens, find_folder
from holdfast.login.cached import answer
from holdfast.login.exec_credential import allows_questions
from holdfast.login.request import make_request, request_options

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_900_000_000
REQUEST = make_request("https://id.example.com", "kubectl", scopes=["groups"])
OPTIONS = request_options(REQUEST)
KEPT = {"token": "kept-token", "expirationTimestamp": "2030-03-17T18:03:20Z"}

OWN = {"holdfast", "holdfast.cli", "holdfast.login"} | {
    f"holdfast.login.{name}" for name in ("cached", "cache", "exec_credential", "plain_json", "request")
}
PROGRAM = """
import sys
before = set(sys.modules)
from holdfast.cli import main
main()
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    TokenCache(find_folder(environment)).write(REQUEST, Tokens("alice", "kept-token", NOW + 1000, "refresh"))
    return environment


def status(told: str | None) -> dict[str, Any]:
    assert told is not None
    credential = json.loads(told)
    assert (credential.pop("apiVersion"), credential.pop("kind")) == (
        "client.authentication.k8s.io/v1",
        "ExecCredential",
    )
    return dict(credential["status"])


@pytest.mark.parametrize("options", [[], ["--device"], ["--no-browser", "--issuer-ca=ca.crt"], ["--name", ""]])
def test_a_fresh_token_is_given_out(environment: dict[str, str], options: list[str]) -> None:
    assert status(answer([*OPTIONS, *options], environment, NOW)) == KEPT


def test_a_login_at_one_of_several_saml_providers_is_given_out(environment: dict[str, str]) -> None:
    request = REQUEST._replace(idp="https://id.test/saml")
    assert answer(request_options(request), environment, NOW) is None
    TokenCache(find_folder(environment)).write(request, Tokens("bob", "of-saml", NOW + 1000))
    assert answer([*request_options(request), "--bare"], environment, NOW) == "of-saml"


def test_the_token_can_be_had_alone(environment: dict[str, str]) -> None:
    assert answer([*OPTIONS, "--bare"], environment, NOW) == "kept-token"
    assert answer(["--bare"], {"HOLDFAST_TOKEN": "given"}, NOW) == "given"


def test_an_option_s_value_may_stand_apart(environment: dict[str, str]) -> None:
    apart = [part for option in OPTIONS for part in option.split("=")]
    assert status(answer(apart, environment, NOW)) == KEPT


@pytest.mark.parametrize(("left", "is_given"), [(60, True), (59, False), (0, False), (-1000, False)])
def test_in_its_last_minute_the_whole_command_decides(environment: dict[str, str], left: int, is_given: bool) -> None:
    assert (answer(OPTIONS, environment, NOW + 1000 - left) is not None) is is_given


@pytest.mark.parametrize(
    "options",
    [
        ["--help"],
        ["-h"],
        ["--unknown=1"],
        ["--token-type=both"],
        ["--name"],
        ["argument"],
        ["--name=other"],
        ["--device=yes"],
        ["--token-file=/nowhere"],
    ],
)
def test_what_it_does_not_know_is_left_to_the_whole_command(environment: dict[str, str], options: list[str]) -> None:
    assert answer([*OPTIONS, *options], environment, NOW) is None


def test_without_a_login_it_has_no_answer(tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path / "nothing")}
    assert answer(OPTIONS, environment, NOW) is None
    assert answer([], environment, NOW) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_trusted_is_no_answer(environment: dict[str, str]) -> None:
    os.chmod(TokenCache(find_folder(environment)).path(REQUEST), 0o644)
    assert answer(OPTIONS, environment, NOW) is None


def test_a_token_that_is_given_goes_before_one_that_is_kept(environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    given = environment | {"HOLDFAST_TOKEN": "of-the-variable"}
    assert status(answer(OPTIONS, given, NOW)) == {"token": "of-the-variable"}
    assert status(answer([], given | {"HOLDFAST_TOKEN_FILE": str(file)}, NOW)) == {"token": "of-the-file"}
    assert status(answer([f"--token-file={file}"], given, NOW)) == {"token": "of-the-file"}


@pytest.mark.parametrize("text", ["two words", "töken", "a\x00b", "a\nb"])
def test_what_is_no_token_is_not_given_out(environment: dict[str, str], text: str) -> None:
    assert answer(OPTIONS, environment | {"HOLDFAST_TOKEN": text}, NOW) is None


INFO = '{{"apiVersion":"client.authentication.k8s.io/{}","kind":"ExecCredential","spec":{{"interactive":{}}}}}'


@pytest.mark.parametrize(
    ("info", "allowed"),
    [
        ("", True),
        (INFO.format("v1", "true"), True),
        (INFO.format("v1", "false"), False),
        (INFO.format("v1", '"true"'), False),
    ],
)
def test_the_client_says_whether_a_person_may_be_asked(info: str, allowed: bool) -> None:
    assert allows_questions({"KUBERNETES_EXEC_INFO": info}) is allowed


@pytest.mark.parametrize("info", [INFO.format("v1beta1", "true"), "{", "[]", "{}"])
def test_another_version_of_the_protocol_is_refused(environment: dict[str, str], info: str) -> None:
    with pytest.raises(ValueError, match=r"client\.authentication\.k8s\.io/v1"):
        allows_questions({"KUBERNETES_EXEC_INFO": info})
    assert answer(OPTIONS, environment | {"KUBERNETES_EXEC_INFO": info}, NOW) is None


@pytest.mark.parametrize("way", ["kept", "given"])
def test_nothing_but_the_standard_library_is_imported(environment: dict[str, str], way: str) -> None:
    cache = TokenCache(find_folder(environment))
    cache.write(REQUEST, Tokens("alice", "kept-token", 2**40, "refresh"))
    environment |= {"HOLDFAST_TOKEN": "given-token"} if way == "given" else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "get-token", *OPTIONS], env=environment, capture_output=True, text=True
    )
    assert status(done.stdout)["token"] == f"{way}-token"
    strangers = {name for name in done.stderr.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert strangers == OWN

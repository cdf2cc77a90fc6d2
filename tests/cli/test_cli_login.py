"""`holdfast login`, `get-token` and `logout`, as processes: what they print, where, and how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.cli.login import COLUMNS
from holdfast.login.cache import TokenCache, Tokens, find_folder
from holdfast.login.request import request_options
from services.identity_provider import IdentityProvider, login_request, write_browser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.login.request import LoginRequest

HOLDFAST = Path(sys.executable).with_name("holdfast")
SECONDS = 120
INFO = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","spec":{"interactive":%s}}'


class Desk:
    """One person's machine: its environment, its cache, and the command."""

    def __init__(self, provider: IdentityProvider, folder: Path) -> None:
        self.request: LoginRequest = login_request(provider, scopes=("groups",))
        self.options = [*request_options(self.request), f"--issuer-ca={provider.ca_file}"]
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "BROWSER": f"{write_browser(provider, folder)} %s",
        }
        self.cache = TokenCache(find_folder(self.environment))

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [HOLDFAST, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | environment,
        )

    def run(self, *arguments: str, stdin: int = subprocess.DEVNULL, **environment: str) -> tuple[int, str, str]:
        with self.start(*arguments, stdin=stdin, **environment) as process:
            out, err = process.communicate(timeout=SECONDS)
        return process.returncode, out, err

    def keep(self, request: LoginRequest, *, renewed: bool = True) -> None:
        refresh_token = "refresh-secret" if renewed else ""
        self.cache.write(request, Tokens("alice", "token-secret", 2_000_000_000, refresh_token))

    def kept(self) -> Tokens:
        tokens = self.cache.read(self.request)
        assert tokens is not None
        return tokens


@pytest.fixture
def provider(identity_provider: IdentityProvider) -> Iterator[IdentityProvider]:
    identity_provider.control("given")
    yield identity_provider
    identity_provider.control("settings", idToken=600, refreshTokens=True)


@pytest.fixture
def desk(provider: IdentityProvider, tmp_path: Path) -> Desk:
    return Desk(provider, tmp_path)


@pytest.fixture
def terminal() -> Iterator[int]:
    """A terminal that somebody sits at."""
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def token_of(out: str) -> str:
    status: dict[str, Any] = json.loads(out)["status"]
    assert status.keys() == {"token", "expirationTimestamp"}
    return str(status["token"])


def test_a_login_is_kept_for_kubectl_and_shown_to_nobody(desk: Desk) -> None:
    code, out, err = desk.run("login", *desk.options)
    assert (code, out) == (0, "")
    assert "browser says hello" in err
    kept = desk.kept()
    until = datetime.fromtimestamp(kept.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"Logged in as alice. The token is good until {until} and is renewed by itself.\n" in err
    assert kept.token not in err
    assert kept.refresh_token not in err
    assert token_of(desk.run("get-token", *desk.options)[1]) == kept.token


def test_a_login_that_cannot_be_renewed_says_when_it_ends(desk: Desk, provider: IdentityProvider) -> None:
    provider.control("settings", refreshTokens=False)
    err = desk.run("login", *desk.options)[2]
    until = datetime.fromtimestamp(desk.kept().expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert f"good until {until}; the provider gave no refresh token, so log in again then.\n" in err


def test_where_there_is_no_terminal_nobody_is_asked(desk: Desk) -> None:
    code, out, err = desk.run("get-token", *desk.options)
    assert (code, out) == (1, "")
    assert (
        err
        == f"holdfast: nobody is logged in at {desk.request.issuer}; run `holdfast login {' '.join(desk.options)}`.\n"
    )


@pytest.mark.parametrize(("interactive", "ends"), [("true", 0), ("false", 1)])
def test_kubectl_says_whether_a_person_at_a_terminal_is_asked(
    desk: Desk, terminal: int, interactive: str, ends: int
) -> None:
    code, out, err = desk.run("get-token", *desk.options, stdin=terminal, KUBERNETES_EXEC_INFO=INFO % interactive)
    assert code == ends, err
    if interactive == "true":
        assert "browser says hello" in err  # and not where kubectl reads
        assert token_of(out) == desk.kept().token
    else:
        assert "nobody is logged in" in err


def test_processes_that_find_a_token_old_together_renew_it_once(desk: Desk, provider: IdentityProvider) -> None:
    provider.control("settings", idToken=50)
    desk.run("login", *desk.options)
    provider.control("settings", idToken=600)
    before = desk.kept()
    with desk.cache.locked(desk.request):
        processes = [desk.start("get-token", *desk.options) for _ in range(3)]
        _await_waiting(processes)
    tokens = set()
    for process in processes:
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        tokens.add(token_of(out))
    assert provider.control("given") == {"authorization_code given": 1, "refresh_token given": 1}
    assert tokens == {desk.kept().token} != {before.token}


def _await_waiting(processes: list[subprocess.Popen[str]]) -> None:
    """Until the kernel lists each of them as waiting for a lock (proc(5), /proc/locks)."""
    wanted = {str(process.pid) for process in processes}
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        if wanted <= {fields[5] for fields in lines if fields[1] == "->"}:
            return
        time.sleep(0.05)
    raise AssertionError("they do not wait for the lock")


def test_a_cache_that_others_can_read_is_not_used_and_says_so(desk: Desk) -> None:
    desk.run("login", *desk.options)
    os.chmod(desk.cache.path(desk.request), 0o644)
    code, out, err = desk.run("get-token", *desk.options)
    assert (code, out) == (1, "")
    assert err.startswith("The tokens that were kept are not used. ")
    assert "is open to other users (mode 0644)" in err


def test_a_folder_that_others_can_read_is_not_logged_in_to(desk: Desk) -> None:
    os.makedirs(desk.cache.folder)
    os.chmod(desk.cache.folder, 0o755)  # noqa: S103
    code, out, err = desk.run("login", *desk.options)
    assert (code, out) == (2, "")
    assert "is open to other users (mode 0755); remove it, or set its mode right." in err


def test_logging_out_forgets_one_login_or_all(desk: Desk) -> None:
    desk.run("login", *desk.options)
    desk.run("login", *desk.options, "--name", "other")
    assert desk.run("logout", *desk.options) == (0, "", "Logged out.\n")
    assert desk.run("get-token", *desk.options, "--name", "other")[0] == 0
    trust = desk.options[-1]
    assert desk.run("logout", "--all", trust) == (0, "", "Forgotten: 1 logins.\n")
    assert desk.run("get-token", *desk.options, "--name", "other")[0] == 1
    assert desk.run("logout", *desk.options) == (0, "", "Nobody was logged in there.\n")
    assert desk.run("logout")[0] == 2
    assert desk.run("logout", "--all", *desk.options)[0] == 2


def test_logging_out_with_other_options_than_at_the_login_says_which_those_were(desk: Desk) -> None:
    desk.keep(desk.request)
    desk.keep(desk.request._replace(scopes=("groups",), name="it's me"))
    desk.keep(desk.request._replace(client_id="other"))
    place = f"--issuer={desk.request.issuer} --client-id=kubectl"
    code, out, err = desk.run("logout", *place.split())
    assert (code, out) == (1, "")
    assert err.startswith("holdfast: nobody is logged in there with these options; the logins that are kept have:\n")
    told = [shlex.split(line) for line in err.splitlines()[1:]]
    assert sorted(told) == [[*place.split(), "--scope=groups"], [*place.split(), "--scope=groups", "--name=it's me"]]


def test_the_logins_that_are_kept_are_listed_without_a_secret(desk: Desk) -> None:
    desk.keep(desk.request)
    desk.keep(desk.request._replace(name="admin", audience="https://gw", kind="access"), renewed=False)
    code, table, err = desk.run("login", "--list")
    assert (code, err) == (0, "")
    assert re.split(r" {2,}", table.splitlines()[0].rstrip()) == list(COLUMNS)
    lines = sorted(line.split() for line in table.splitlines()[1:])
    common = [desk.request.issuer, "kubectl", "groups", "alice", "2033-05-18T03:33:20Z"]
    more = ["no", "--audience=https://gw", "--token-type=access", "--name=admin"]
    assert lines == [[*common, *more], [*common, "yes"]]
    listed = desk.run("login", "--list", "-o", "json")[1]
    assert {tuple(login["options"]) for login in json.loads(listed)} == {
        tuple(request_options(request)) for request in desk.cache.requests()
    }
    assert "secret" not in table + listed


def test_nothing_is_listed_where_nobody_has_logged_in(desk: Desk) -> None:
    assert desk.run("login", "--list", "-o", "json") == (0, "[]\n", "")


@pytest.mark.parametrize("command", ["login", "get-token", "logout"])
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--issuer=https://id.test"], "--client-id: is missing; a login is at an --issuer and for a --client-id."),
        (["--client-id=kubectl"], "--issuer: is missing; a login is at an --issuer and for a --client-id."),
        (["--scope=groups,email"], "--scope: found 'groups,email'; give each scope by itself, as --scope groups "),
        (["--scope="], "--scope: found ''; give each scope by itself"),
        (["--audience=gateway"], "--audience: says whom access tokens are for; add --token-type access, or leave it"),
    ],
)
def test_an_option_that_would_mean_nothing_is_refused(desk: Desk, command: str, arguments: list[str], why: str) -> None:
    place = [] if why.endswith("client-id.") else ["--issuer=https://id.test", "--client-id=kubectl"]
    code, out, err = desk.run(command, *place, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"holdfast: {why}")


def test_logging_out_everywhere_forgets_what_cannot_be_ended_or_read_too(desk: Desk) -> None:
    desk.run("login", *desk.options)
    desk.run("login", *desk.options, "--name", "other")
    os.chmod(desk.cache.path(desk.request), 0o644)
    code, out, err = desk.run("logout", "--all")  # which does not trust the provider's certificate
    assert (code, out) == (1, "")
    assert err.startswith("Forgotten: 2 logins.\n")
    assert "give its CA with --issuer-ca" in err
    assert err.count("forgotten here, but a copy could still be renewed") == 1
    assert [name for name in os.listdir(desk.cache.folder) if name.endswith(".json")] == []


@pytest.mark.parametrize("everything", [False, True])
def test_logging_out_says_that_what_others_could_read_was_not_ended(desk: Desk, everything: bool) -> None:
    desk.keep(desk.request)
    os.chmod(desk.cache.path(desk.request), 0o644)
    code, out, err = desk.run("logout", *(["--all", desk.options[-1]] if everything else desk.options))
    assert (code, out) == (1, "")
    assert "a copy could still be renewed" in err
    assert desk.cache.read(desk.request) is None


def test_a_job_gives_its_own_token(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "job.token"
    file.write_text("of-the-file\n")
    for arguments, environment, token in [
        (["--token-file", str(file)], {}, "of-the-file"),
        ([], {"HOLDFAST_TOKEN_FILE": str(file)}, "of-the-file"),
        (desk.options, {"HOLDFAST_TOKEN": "of-the-variable"}, "of-the-variable"),
    ]:
        code, out, err = desk.run("get-token", *arguments, **environment)
        assert (code, json.loads(out)["status"], err) == (0, {"token": token}, "")


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        ([], {}, "no token: give --issuer and --client-id, or --token-file FILE, or set $HOLDFAST_TOKEN."),
        ([], {"HOLDFAST_TOKEN": "secret in parts"}, "$HOLDFAST_TOKEN: expected one bearer token on one line."),
        (["--token-file=/nowhere"], {}, "/nowhere: No such file or directory."),
        (
            ["--issuer=http://id.example", "--client-id=a"],
            {"KUBERNETES_EXEC_INFO": "{}"},
            "is not an ExecCredential of",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_without_a_token(
    desk: Desk, arguments: list[str], environment: dict[str, str], why: str
) -> None:
    code, out, err = desk.run("get-token", *arguments, **environment)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err
    assert "secret" not in err


def test_ctrl_c_ends_a_login_quietly(desk: Desk) -> None:
    with desk.start("login", *desk.options, "--no-browser") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Open this address")
        process.send_signal(2)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err

"""The cache of tokens: whose it must be, what it must hold, and who may get new ones."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast.login.cache import NotTrusted, TokenCache, Tokens, find_folder
from holdfast.login.request import make_request

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = make_request("https://id.example.com", "kubectl", scopes=["groups"])
TOKENS = Tokens("alice", "token-of-alice", 2_000_000_000, "refresh-token-of-alice")


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    kept = TokenCache(str(tmp_path / "holdfast" / "tokens"))
    kept.write(REQUEST, TOKENS)
    return kept


def test_what_is_kept_is_read(cache: TokenCache) -> None:
    assert cache.read(REQUEST) == TOKENS
    assert cache.read(REQUEST._replace(name="other")) is None
    assert TokenCache(cache.folder + "-elsewhere").read(REQUEST) is None


def test_only_the_owner_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    cache = TokenCache(str(tmp_path / "holdfast" / "tokens"))
    before = os.umask(0)
    try:
        cache.write(REQUEST, TOKENS)
        with cache.locked(REQUEST):
            modes = [stat.S_IMODE(Path(path).stat().st_mode) for path in (cache.folder, *Path(cache.folder).iterdir())]
    finally:
        os.umask(before)
    assert modes == [0o700, 0o600, 0o600]


def test_a_reader_finds_the_old_tokens_or_all_of_the_new(cache: TokenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space left"):
        cache.write(REQUEST, TOKENS._replace(token="new"))
    assert cache.read(REQUEST) == TOKENS
    assert len(os.listdir(cache.folder)) == 1


def of_another_mode(file: Path) -> None:
    file.chmod(0o640)


def a_link(file: Path) -> None:
    moved = file.rename(file.with_suffix(".moved"))
    file.symlink_to(moved)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def broken(file: Path) -> None:
    file.write_text(file.read_text()[:-1])


def nested_too_deep(file: Path) -> None:
    file.write_text("[" * 100_000)


def of_other_types(file: Path) -> None:
    document = json.loads(file.read_text())
    document["tokens"]["expires_at"] = "2000000000"
    file.write_text(json.dumps(document))


def with_more(file: Path) -> None:
    document = json.loads(file.read_text())
    document["tokens"]["more"] = ""
    file.write_text(json.dumps(document))


def of_another_login(file: Path) -> None:
    document = json.loads(file.read_text())
    document["request"]["issuer"] = "https://evil.example.com"
    file.write_text(json.dumps(document))


def of_no_login(file: Path) -> None:
    document = json.loads(file.read_text())
    document["request"]["issuer"] = 7
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (of_another_mode, r"is open to other users \(mode 0640\)"),
        (a_link, "cannot be read: Too many levels of symbolic links"),
        (a_pipe, "is not a plain file or folder"),
        (broken, "is not what a login writes"),
        (nested_too_deep, "is not what a login writes"),
        (of_other_types, "is not what a login writes"),
        (with_more, "is not what a login writes"),
        (of_no_login, "is not what a login writes"),
        (of_another_login, "holds the tokens of another login"),
    ],
)
def test_a_file_that_is_not_as_it_was_left_is_not_trusted(
    cache: TokenCache, spoil: Callable[[Path], None], why: str
) -> None:
    spoil(Path(cache.path(REQUEST)))
    with pytest.raises(NotTrusted, match=why):
        cache.read(REQUEST)


def test_the_logins_that_are_kept_are_listed(cache: TokenCache) -> None:
    others = [REQUEST._replace(name=name) for name in ("spoilt", "readable")]
    for request in others:
        cache.write(request, TOKENS)
    of_no_login(Path(cache.path(others[0])))
    of_another_mode(Path(cache.path(others[1])))
    assert cache.requests() == [REQUEST]
    assert cache.remove_all() == 3
    assert cache.requests() == []
    assert TokenCache(cache.folder + "-elsewhere").requests() == []


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_somebody_else_is_not_trusted(
    cache: TokenCache, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(cache.path(REQUEST) if which == "file" else cache.folder, 12345, 12345)
    else:
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(NotTrusted, match="belongs to another user"):
        cache.read(REQUEST)


def test_a_folder_that_is_open_to_others_is_neither_read_nor_written(cache: TokenCache) -> None:
    os.chmod(cache.folder, 0o755)  # noqa: S103
    for touch in (lambda: cache.read(REQUEST), lambda: cache.write(REQUEST, TOKENS)):
        with pytest.raises(NotTrusted, match=r"tokens: is open to other users \(mode 0755\)"):
            touch()


def test_no_token_is_shown() -> None:
    assert "alice" not in f"{TOKENS!r} {TOKENS}"


def test_removing(cache: TokenCache) -> None:
    other = REQUEST._replace(client_id="other")
    cache.write(other, TOKENS)
    assert (cache.remove(REQUEST), cache.remove(REQUEST)) == (True, False)
    assert (cache.remove_all(), cache.read(other)) == (1, None)


def test_removing_all_does_not_follow_a_link_to_files_of_something_else(tmp_path: Path) -> None:
    others = tmp_path / "project"
    others.mkdir()
    (others / "package.json").write_text("{}")
    folder = tmp_path / "holdfast" / "tokens"
    folder.parent.mkdir()
    folder.symlink_to(others)
    with pytest.raises(OSError, match=str(folder)):
        TokenCache(str(folder)).remove_all()
    assert [file.name for file in others.iterdir()] == ["package.json"]


def test_equal_requests_share_a_file_and_others_do_not() -> None:
    same = make_request("https://id.example.com", "kubectl", scopes=["groups openid", "groups"])
    keys = {
        REQUEST.key,
        same.key,
        *(
            REQUEST._replace(**{name: value}).key
            for name, value in [
                ("issuer", "https://id.example.com/"),
                ("client_id", "other"),
                ("scopes", ()),
                ("audience", "a"),
                ("kind", "access"),
                ("name", "a"),
                ("idp", "a"),
            ]
        ),
    }
    assert len(keys) == 8


def test_a_login_from_before_saml_providers_had_a_name_is_found(cache: TokenCache) -> None:
    file = Path(cache.path(REQUEST))
    assert file.name == "55ce96d311d4f7f7904cfb9f4ebd23a6.json"
    document = json.loads(file.read_text())
    assert document["request"].pop("idp") == ""
    file.write_text(json.dumps(document))
    assert (cache.read(REQUEST), cache.requests()) == (TOKENS, [REQUEST])


@pytest.mark.parametrize(
    ("given", "folder"),
    [("/x", "/x/holdfast/tokens"), ("", "{home}/.cache/holdfast/tokens"), ("x", "{home}/.cache/holdfast/tokens")],
)
def test_the_folder_is_where_xdg_has_it(given: str, folder: str) -> None:
    assert find_folder({"XDG_CACHE_HOME": given}) == folder.format(home=Path.home())

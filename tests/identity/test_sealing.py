"""What a browser carries for us: nobody else reads or changes it, and it is good for one thing, for a while."""

from __future__ import annotations

import base64

import pytest

from holdfast.identity.sealing import seal, unseal

NOW = 1_800_000_000.5
OLD, NEW = b"an old secret", b"a new secret"
CONTENT = b'{"sub":"alice"}'


def opened(sealed: str, *, now: float = NOW, purpose: str = "login", secrets: tuple[bytes, ...] = (OLD,)) -> bytes:
    return unseal(sealed, secrets, purpose, now=now, seconds=60)


def test_it_comes_back_as_it_was_and_shows_nothing() -> None:
    sealed = seal(CONTENT, (OLD,), "login", now=NOW)
    assert opened(sealed) == CONTENT
    assert b"alice" not in base64.urlsafe_b64decode(sealed)
    assert seal(CONTENT, (OLD,), "login", now=NOW) != sealed


def test_a_new_secret_closes_and_the_old_one_still_opens() -> None:
    sealed = seal(CONTENT, (OLD,), "login", now=NOW)
    assert opened(sealed, secrets=(NEW, OLD)) == CONTENT
    assert opened(seal(CONTENT, (NEW, OLD), "login", now=NOW), secrets=(NEW,)) == CONTENT


@pytest.mark.parametrize(
    "changed",
    [{"purpose": "code"}, {"secrets": (NEW,)}, {"now": NOW + 61}, {"now": NOW - 120}],
    ids=["another purpose", "another secret", "too old", "from the future"],
)
def test_it_is_good_for_one_purpose_here_and_for_a_while(changed: dict[str, object]) -> None:
    sealed = seal(CONTENT, (OLD,), "login", now=NOW)
    with pytest.raises(ValueError, match="not sealed here"):
        opened(sealed, **changed)  # type: ignore[arg-type]


def test_no_byte_can_be_changed() -> None:
    whole = base64.urlsafe_b64decode(seal(CONTENT, (OLD,), "login", now=NOW))
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        with pytest.raises(ValueError, match="not sealed here"):
            opened(base64.urlsafe_b64encode(damaged).decode())


@pytest.mark.parametrize("text", ["", "!", "\u00e4", "gAAAAA==", "a" * 10_000])
def test_what_is_not_ours_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not sealed here"):
        opened(text)

"""Sessions at the tests' provider, with a clock that is moved by hand and a browser that a test plays."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from holdfast.login.cache import TokenCache
from holdfast.login.session import Session, Surroundings, Way
from services.identity_provider import IdentityProvider, login_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any


@dataclass
class Person:
    """The one who logs in: what they were told, how long they were made to wait, and what they do with an address."""

    provider: IdentityProvider
    name: str = "alice"
    consents: bool = True
    now: float = field(default_factory=time.time)
    told: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    hears: Callable[[str], None] = lambda _: None
    opens: Callable[[str], bool] | None = None

    def tell(self, text: str) -> None:
        self.told.append(text)
        self.hears(text)

    def open_browser(self, url: str) -> bool:
        self.addresses.append(url)
        if self.opens is not None:
            return self.opens(url)
        self.pages.append(self.provider.browse(url, self.name, consent=self.consents).text)
        return True

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def provider(identity_provider: IdentityProvider) -> Iterator[IdentityProvider]:
    identity_provider.control("given")
    yield identity_provider
    identity_provider.answer_next("")
    identity_provider.control("settings", idToken=600, accessToken=600, deviceCode=600, refreshTokens=True)


@pytest.fixture
def person(provider: IdentityProvider) -> Person:
    return Person(provider)


@pytest.fixture
def cache(tmp_path: Path) -> TokenCache:
    return TokenCache(str(tmp_path / "holdfast" / "tokens"))


@pytest.fixture
def open_session(provider: IdentityProvider, person: Person, cache: TokenCache) -> Callable[..., Session]:
    """open_session(way, login_seconds=..., kind=..., scopes=...): what `make_request` takes too."""

    def open_it(way: Way = Way.BROWSER, *, login_seconds: float = 60, **wanted: Any) -> Session:
        around = Surroundings(
            clock=lambda: person.now,
            sleep=person.sleep,
            random_bytes=secrets.token_bytes,
            open_browser=person.open_browser,
            tell=person.tell,
            login_seconds=login_seconds,
        )
        request = login_request(provider, **({"scopes": ("groups",)} | wanted))
        return Session(request, cache, provider.ca_file, way, around)

    return open_it

"""When keys are read again, and how long they are believed."""

from __future__ import annotations

import asyncio
import json

import pytest

from holdfast.errors import ConfigurationError
from holdfast.identity.key_source import MAX_AGE_SECONDS, MIN_SECONDS_BETWEEN_REFRESHES, KeySource
from identity.forging import EC_1, ISSUER, NOW, RSA_1, public_jwk

FIRST = public_jwk(EC_1, kid="first")
SECOND = public_jwk(RSA_1, kid="second")


class Publisher:
    """An issuer's key document, and how often it was read."""

    def __init__(self, *keys: object) -> None:
        self.keys: tuple[object, ...] = keys
        self.reads = 0
        self.is_down = False
        self.fault: Exception = ConfigurationError("issuer https://issuer.example: cannot be reached.")
        self.read = asyncio.Event()

    async def load(self) -> bytes:
        self.reads += 1
        self.read.set()
        await asyncio.sleep(0)
        if self.is_down:
            raise self.fault
        return json.dumps({"keys": self.keys}).encode()


@pytest.fixture
def publisher() -> Publisher:
    return Publisher(FIRST)


@pytest.fixture
async def source(publisher, clock):
    source = KeySource(ISSUER, publisher.load, clock=clock)
    await source.start()
    yield source
    await source.close()


def names(source: KeySource) -> list[str]:
    keys = source.current()
    assert keys is not None
    return [key_id for key_id, _ in keys.keys]


def test_there_are_no_keys_before_the_start(publisher, clock):
    assert KeySource(ISSUER, publisher.load, clock=clock).current() is None


async def test_the_start_reads_the_keys(source, publisher):
    assert names(source) == ["first"]
    assert publisher.reads == 1


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ((), r"has no usable key: it publishes none\."),
        (({"kty": "oct", "k": "c2VjcmV0"},), r"has no usable key: key 1: is a symmetric or private key\."),
        (
            ({"kty": "OKP"}, None),
            r"key 1: is neither RSA, nor EC on P-256, P-384, P-521, nor Ed25519; key 2: is not an object\.",
        ),
    ],
)
async def test_a_start_without_a_usable_key_says_why(clock, keys, fault):
    source = KeySource(ISSUER, Publisher(*keys).load, clock=clock)
    with pytest.raises(ConfigurationError, match=fault) as error:
        await source.start()
    assert str(error.value).startswith("issuer https://issuer.example: ")
    await source.close()


async def test_a_start_with_a_broken_document_says_so(clock):
    async def load() -> bytes:
        return b"<html>"

    with pytest.raises(ConfigurationError, match=r"issuer https://issuer\.example: its key set cannot be read: "):
        await KeySource(ISSUER, load, clock=clock).start()


async def test_however_many_wait_one_read_is_under_way(source, publisher, clock):
    clock.now += MIN_SECONDS_BETWEEN_REFRESHES
    publisher.keys = (FIRST, SECOND)
    await asyncio.gather(*(source.refresh_for_unknown_key() for _ in range(500)))
    assert publisher.reads == 2
    assert names(source) == ["first", "second"]


async def test_a_flood_of_unknown_keys_reads_once_in_thirty_seconds(source, publisher, clock):
    for _ in range(600):
        clock.now += 0.5
        await source.refresh_for_unknown_key()
    assert publisher.reads == 1 + 300 / MIN_SECONDS_BETWEEN_REFRESHES


async def test_a_flood_reads_no_more_often_while_the_issuer_is_down(source, publisher, clock):
    publisher.is_down = True
    for _ in range(600):
        clock.now += 0.5
        await source.refresh_for_unknown_key()
    assert publisher.reads == 1 + 300 / MIN_SECONDS_BETWEEN_REFRESHES


async def test_a_clock_set_back_does_not_stop_refreshes(source, publisher, clock):
    clock.now -= 86_400
    await source.refresh_for_unknown_key()
    assert publisher.reads == 2


async def test_the_last_good_keys_stay_while_the_issuer_is_down_for_a_day(source, publisher, clock):
    publisher.is_down = True
    clock.now += MAX_AGE_SECONDS
    await source.refresh()
    assert names(source) == ["first"]
    clock.now += 1
    await source.refresh()
    assert source.current() is None


async def test_an_issuer_that_comes_back_is_believed_again(source, publisher, clock):
    clock.now += MAX_AGE_SECONDS + 1
    assert source.current() is None
    await source.refresh()
    assert names(source) == ["first"]


async def test_an_outage_is_logged_with_its_cause(source, publisher, caplog):
    publisher.is_down = True
    await source.refresh()
    assert "Keeping the keys of https://issuer.example from before" in caplog.text
    assert "cannot be reached" in caplog.text


async def test_keys_that_the_issuer_withdraws_are_gone(source, publisher):
    publisher.keys = ()
    await source.refresh()
    assert names(source) == []


async def test_an_unchanged_set_is_the_same_object(source, publisher):
    before = source.current()
    publisher.keys = ({**FIRST, "use": "sig"},)
    await source.refresh()
    assert source.current() is before
    publisher.keys = (FIRST, SECOND)
    await source.refresh()
    assert source.current() is not before


async def test_a_caller_that_leaves_does_not_stop_the_read(source, publisher):
    publisher.keys = (FIRST, SECOND)
    leaving = asyncio.create_task(source.refresh())
    staying = asyncio.create_task(source.refresh())
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert names(source) == ["first", "second"]
    assert publisher.reads == 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ConfigurationError("issuer https://issuer.example: cannot be reached."), "cannot be reached."),
        (RuntimeError("what nobody foresaw"), "RuntimeError, a fault of ours."),
    ],
)
async def test_keys_are_read_again_in_the_background_also_after_a_failure(publisher, clock, caplog, fault, told):
    source = KeySource(ISSUER, publisher.load, clock=clock, refresh_seconds=0.001)
    await source.start()
    publisher.is_down, publisher.fault = True, fault
    async with asyncio.timeout(30):
        for _ in range(3):
            publisher.read.clear()
            await publisher.read.wait()
    await source.close()
    assert names(source) == ["first"]
    assert told in caplog.text


async def test_a_key_that_is_nonsense_does_not_stop_the_reading(publisher, clock):
    publisher.keys = (FIRST, {**SECOND, "alg": {}})
    source = KeySource(ISSUER, publisher.load, clock=clock, refresh_seconds=0.001)
    await source.start()
    assert names(source) == ["first"]
    publisher.keys = (SECOND,)
    for _ in range(3):
        publisher.read.clear()
        await publisher.read.wait()
    await source.close()
    assert names(source) == ["second"]


async def test_closing_ends_every_read(publisher, clock):
    source = KeySource(ISSUER, publisher.load, clock=clock)
    await source.start()
    waiting = asyncio.create_task(source.refresh())
    await asyncio.sleep(0)
    await source.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_clock_of_these_tests_is_the_tokens(clock):
    assert clock() == NOW

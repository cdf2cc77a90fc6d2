"""What it costs to know who asks: tokens verified before, tokens seen for the first time, floods, and hostile ones."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from itertools import batched
from typing import TYPE_CHECKING, Any

from joserfc import jwk, jws

from holdfast.errors import Unauthorized
from holdfast.identity.authenticator import Authenticator
from holdfast.identity.key_source import KeySource
from holdfast.identity.keys import parse_key_set
from holdfast.identity.mapping import UserMapper
from holdfast.identity.serialization import decode_base64url, encode_base64url
from holdfast.identity.token import parse_token, verify_token
from holdfast.settings.identity import ALGORITHMS, IdentitySection, Issuer, JWTAuthenticator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ISSUER = "https://issuer.bench"
PLAIN = {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}
EXPRESSIONS = {
    "username": {"expression": "'ci:' + claims.sub"},
    "groups": {"expression": "claims.groups.map(group, 'ci:' + group)"},
}
TOKENS = 2_000
CALLS = 300_000
AT_ONCE = 100
FLOOD = 20_000
FLOOD_SECONDS = 60.0
TICK_SECONDS = 0.001


def measure_identity(folder: Path, report: Callable[[str], None], fuzzed: int) -> dict[str, float]:
    """Tokens a second on one core, fetches that a flood causes, the loop's longest stop, and what became of fuzz."""
    keys = {
        "RS256": jwk.RSAKey.generate_key(2048),
        "PS256": jwk.RSAKey.generate_key(2048),
        "ES256": jwk.ECKey.generate_key("P-256"),
        "EdDSA": jwk.OKPKey.generate_key("Ed25519"),
    }
    document = json.dumps({"keys": [_publish(name, key) for name, key in keys.items()]}).encode()
    figures: dict[str, float] = {}
    for name, key in keys.items():
        report(f"seen for the first time: {name}")
        figures[f"uncached_{name}_per_s"] = _measure_uncached(
            [_sign(name, key, n) for n in range(TOKENS)], document, PLAIN
        )
    tokens = [_sign("RS256", keys["RS256"], number) for number in range(TOKENS)]
    report("seen for the first time: RS256, with expressions")
    figures["uncached_RS256_expressions_per_s"] = _measure_uncached(tokens, document, EXPRESSIONS)
    file = folder / "jwks.json"
    file.write_bytes(document)
    figures |= asyncio.run(_measure_loop(tokens, file, report))
    report(f"a flood of {FLOOD} tokens of unknown keys in {FLOOD_SECONDS:.0f} s")
    figures["flood_fetches"] = asyncio.run(_measure_flood(document))
    return figures | _measure_fuzz(tokens[:50], document, fuzzed, report)


def _publish(name: str, key: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": name, "alg": name}


def _sign(name: str, key: Any, number: int, key_id: str = "") -> str:
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": f"repo:org/app-{number}:ref:refs/heads/main",
        "aud": "holdfast",
        "groups": ["dev", "ci"],
        "iat": now,
        "exp": now + 3600,
        "repository": f"org/app-{number}",
        "run_id": str(number),
    }
    header = {"alg": name, "kid": key_id or name}
    return jws.serialize_compact(header, json.dumps(claims).encode(), key, algorithms=[name])


def _trusting(mappings: dict[str, Any], jwks_file: Path | None = None) -> JWTAuthenticator:
    issuer = Issuer(url=ISSUER, audiences=("holdfast",), jwks_file=jwks_file)
    return JWTAuthenticator.model_validate({"issuer": issuer, "claimMappings": mappings})


def _measure_uncached(tokens: list[str], document: bytes, mappings: dict[str, Any]) -> float:
    mapper, keys, now = UserMapper(_trusting(mappings)), parse_key_set(document, ALGORITHMS), time.time()
    began = time.perf_counter()
    for text in tokens:
        verify_token(parse_token(text), mapper, keys, now)
    return len(tokens) / (time.perf_counter() - began)


async def _measure_loop(tokens: list[str], file: Path, report: Callable[[str], None]) -> dict[str, float]:
    report("on an event loop")
    authenticator = Authenticator(IdentitySection(jwt=(_trusting(PLAIN, file),)))
    await authenticator.start()
    headers = [f"Bearer {text}" for text in tokens]
    stops: list[float] = []
    watching = asyncio.create_task(_watch_loop(stops))
    await asyncio.sleep(0.05)
    for burst in batched(headers, AT_ONCE):
        await asyncio.gather(*(authenticator.authenticate(header) for header in burst))
    watching.cancel()
    began = time.perf_counter()
    for number in range(CALLS):
        if authenticator.cached(headers[number % TOKENS]) is None:
            raise AssertionError("a token that was just verified is not remembered")
    seconds = time.perf_counter() - began
    await authenticator.close()
    return {"cached_per_s": CALLS / seconds, "longest_loop_stop_ms": max(stops) * 1000}


async def _watch_loop(stops: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK_SECONDS)
        stops.append(time.perf_counter() - before - TICK_SECONDS)


async def _measure_flood(document: bytes) -> float:
    """Fetches by tokens of made-up keys, evenly over `FLOOD_SECONDS` of a clock that the benchmark turns."""
    fetches, now = 0, 0.0

    async def load() -> bytes:
        nonlocal fetches
        fetches += 1
        return document

    source = KeySource(Issuer(url=ISSUER, audiences=("holdfast",)), load, clock=lambda: now, refresh_seconds=10**6)
    await source.start()
    fetches = 0
    for number in range(FLOOD):
        now = FLOOD_SECONDS * number / FLOOD
        await source.refresh_for_unknown_key()
    await source.close()
    return fetches


def _measure_fuzz(tokens: list[str], document: bytes, fuzzed: int, report: Callable[[str], None]) -> dict[str, float]:
    """Tokens that were damaged at random: all must be refused, and nothing else may be raised."""
    mapper, keys, now = UserMapper(_trusting(EXPRESSIONS)), parse_key_set(document, ALGORITHMS), time.time()
    reasons: Counter[str] = Counter()
    began = time.perf_counter()
    for number, text in enumerate(_damage(tokens, fuzzed)):
        try:
            verify_token(parse_token(text), mapper, keys, now)
            reasons["accepted"] += 1
        except Unauthorized as refusal:
            reasons[refusal.why] += 1
        if number % 50_000 == 0:
            report(f"fuzz: {number} of {fuzzed} tokens")
    seconds = time.perf_counter() - began
    return {"fuzzed": fuzzed, "fuzzed_per_s": fuzzed / seconds} | {
        f"fuzzed_{reason}": count for reason, count in reasons.most_common()
    }


def _damage(tokens: list[str], number: int) -> Iterator[str]:
    """Tokens with bytes of their text or of their JSON changed, cut, doubled or inserted, always in some way."""
    chance = random.Random(1)  # noqa: S311  the same run again
    alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \0\u00e9{}[]":,'
    segments = [text.split(".") for text in tokens]
    for count in range(number):
        parts = list(chance.choice(segments))
        if count % 2:
            place = chance.randrange(2)
            document = decode_base64url(parts[place]).decode()
            damaged = _change(document, chance, alphabet)
            parts[place] = encode_base64url((damaged if damaged != document else document[:-1]).encode())
            yield ".".join(parts)
        else:
            text = ".".join(parts)
            damaged = _change(text, chance, alphabet)
            yield damaged if damaged != text else text[:-1]


def _change(text: str, chance: random.Random, alphabet: str) -> str:
    at = chance.randrange(len(text))
    match chance.randrange(5):
        case 0:
            return text[:at] + chance.choice(alphabet) + text[at + 1 :]
        case 1:
            return text[:at] + text[at + 1 + chance.randrange(8) :]
        case 2:
            return text[:at] + chance.choice(alphabet) * (1 + chance.randrange(4)) + text[at:]
        case 3:
            return text[:at] + text[at // 2 : at] + text[at:]
        case _:
            return text[:at]

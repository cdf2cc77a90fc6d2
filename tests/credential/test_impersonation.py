"""Who asks, as header fields: every value arrives as it is, or the call ends."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.credential.impersonation import MAX_BYTES, impersonation_fields
from holdfast.errors import Forbidden
from holdfast.exchange import CREDENTIAL_ID, Identity

ISSUER = "https://issuer.test"


def fields(username: str = "ada", groups: tuple[str, ...] = (), **more: Any) -> list[tuple[bytes, bytes]]:
    return list(impersonation_fields(Identity(ISSUER, username, groups, **more)))


def values(found: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in found if key == name]


def test_the_user_each_group_the_uid_and_the_extra_are_told() -> None:
    extra = {CREDENTIAL_ID: ("JTI=t-1",), "example.com/tenant": ("72", "73")}
    assert fields("ada", ("dev", "ops"), uid="u-1", extra=extra, claims={"run_id": "99"}) == [
        (b"impersonate-user", b"ada"),
        (b"impersonate-group", b"dev"),
        (b"impersonate-group", b"ops"),
        (b"impersonate-group", b"system:authenticated"),
        (b"impersonate-uid", b"u-1"),
        (b"impersonate-extra-authentication.kubernetes.io%2fcredential-id", b"JTI=t-1"),
        (b"impersonate-extra-example.com%2ftenant", b"72"),
        (b"impersonate-extra-example.com%2ftenant", b"73"),
        (b"impersonate-extra-holdfast.dev%2fissuer", b"https://issuer.test"),
        (b"impersonate-extra-holdfast.dev%2frun-id", b"99"),
    ]


def test_with_a_name_alone_the_caller_is_authenticated_and_of_an_issuer() -> None:
    assert fields() == [
        (b"impersonate-user", b"ada"),
        (b"impersonate-group", b"system:authenticated"),
        (b"impersonate-extra-holdfast.dev%2fissuer", b"https://issuer.test"),
    ]


def test_a_comma_is_part_of_a_group_and_makes_no_second_one() -> None:
    found = fields(groups=("a,system:masters", "b, c"))
    assert values(found, b"impersonate-group") == [b"a,system:masters", b"b, c", b"system:authenticated"]


def test_names_that_the_identity_stage_let_through_are_told_and_none_twice() -> None:
    found = fields("system:serviceaccount:shop:ci", ("system:masters", "system:authenticated"))
    assert values(found, b"impersonate-user") == [b"system:serviceaccount:shop:ci"]
    assert values(found, b"impersonate-group") == [b"system:masters", b"system:authenticated"]


def test_a_name_beyond_ascii_goes_as_utf8() -> None:
    assert fields("zoë", ("größe",))[:2] == [
        (b"impersonate-user", "zoë".encode()),
        (b"impersonate-group", "größe".encode()),
    ]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"run_id": "1", "pipeline_id": "2", "job_id": "3"}, [b"1"]),
        ({"pipeline_id": "2", "job_id": "3"}, [b"2"]),
        ({"job_id": "0190-ab"}, [b"0190-ab"]),
        ({"run_id": 17}, [b"17"]),
        ({"run_id": "", "job_id": "3"}, [b"3"]),
        ({"run_id": True, "pipeline_id": ["2"], "job_id": {"a": "b"}}, []),
        ({"run_id": None}, []),
    ],
)
def test_the_run_is_the_first_of_the_claims_that_name_one(claims: dict[str, Any], expected: list[bytes]) -> None:
    assert values(fields(claims=claims), b"impersonate-extra-holdfast.dev%2frun-id") == expected


def test_nobody_but_us_says_which_issuer_it_was() -> None:
    found = fields(
        extra={"holdfast.dev/issuer": ("https://other.test",), "holdfast.dev/run-id": ("1",)}, claims={"run_id": "2"}
    )
    assert values(found, b"impersonate-extra-holdfast.dev%2fissuer") == [b"https://issuer.test"]
    assert values(found, b"impersonate-extra-holdfast.dev%2frun-id") == [b"2"]


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        ("example.com/a_b-c", b"example.com%2fa_b-c"),
        ("example.com/a%2fb", b"example.com%2fa%252fb"),
        ("example.com/a:b,(c)=d;e", b"example.com%2fa%3ab%2c%28c%29%3dd%3be"),
        ("example.com/Ab", b"example.com%2f%41b"),
        ("example.com/é\r\n", b"example.com%2f%c3%a9%0d%0a"),
    ],
)
def test_a_key_is_escaped_so_that_the_api_server_reads_it_as_it_is(key: str, escaped: bytes) -> None:
    assert (b"impersonate-extra-" + escaped, b"v") in fields(extra={key: ("v",)})


HOSTILE = {
    "empty": "",
    "blank": " ",
    "leading space": " system:masters",
    "trailing space": "system:masters ",
    "tab": "\tsystem:masters",
    "CR LF": "x\r\nImpersonate-Group: system:masters",
    "LF": "x\nImpersonate-Group: system:masters",
    "NUL": "x\x00",
    "DEL": "x\x7f",
    "C1": "x\x85",
    "no-break space": "\xa0x",
    "bidirectional": "x\u202ey",
    "lone surrogate": "x\ud800",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("place", ["user name", "group", "extra", "run", "issuer"])
def test_a_value_that_would_not_arrive_as_it_is_ends_the_call(place: str, value: str) -> None:
    identity = {
        "user name": Identity(ISSUER, value),
        "group": Identity(ISSUER, "ada", ("dev", value)),
        "extra": Identity(ISSUER, "ada", extra={"example.com/tenant": ("1", value)}),
        "run": Identity(ISSUER, "ada", claims={"run_id": value}),
        "issuer": Identity(value, "ada"),
    }[place]
    if place == "run" and not value:
        assert values(list(impersonation_fields(identity)), b"impersonate-extra-holdfast.dev%2frun-id") == []
        return
    with pytest.raises(Forbidden, match="a character that no header can carry") as refused:
        impersonation_fields(identity)
    assert "masters" not in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_uid_that_would_not_arrive_as_it_is_ends_the_call() -> None:
    with pytest.raises(Forbidden, match="a uid of your token"):
        fields(uid="u\r\n1")


def test_what_is_told_is_bounded() -> None:
    with pytest.raises(Forbidden, match=rf"1000 groups .* at most {MAX_BYTES} are sent"):
        fields(groups=tuple(f"group-{number}" for number in range(1000)))
    rest = sum(len(name) + len(value) + 4 for name, value in fields())
    room = MAX_BYTES - rest - len("impersonate-group: \r\n")
    assert len(fields(groups=("x" * room,))) == 4
    with pytest.raises(Forbidden, match="have its issuer list fewer groups"):
        fields(groups=("x" * (room + 1),))


@given(st.builds(Identity, st.just(ISSUER), st.text(), st.lists(st.text(), max_size=4).map(tuple), st.text()))
def test_whoever_asks_the_fields_are_ones_that_every_server_reads_alike(identity: Identity) -> None:
    try:
        found = impersonation_fields(identity)
    except Forbidden:
        return
    assert found[0] == (b"impersonate-user", identity.username.encode())
    told = [value.decode() for name, value in found if name == b"impersonate-group"]
    assert tuple(told[: len(identity.groups)]) == identity.groups
    for _, value in found:
        assert value == value.strip()
        assert not set(value) & {*range(32), 127}

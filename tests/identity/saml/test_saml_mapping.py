"""How verified assertions become users, and which do not; an assertion is used once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from holdfast.errors import Unauthorized
from holdfast.exchange import Identity, flatten_claims
from holdfast.identity.saml.assertion import SAMLIdentity
from holdfast.identity.saml.mapping import GROUPS_ELSEWHERE, map_identity
from holdfast.identity.saml.replay import require_first_use
from holdfast.settings.saml import TRANSIENT
from identity.saml.forging import IDP, NOW, trusting

PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
ADA = SAMLIdentity(
    issuer=IDP,
    name_id="ada@example.com",
    name_id_format=PERSISTENT,
    assertion_id="_a1",
    not_on_or_after=NOW + 300,
    expires_at=NOW + 3600,
    attributes={"groups": ("dev", "ops"), "mail": ("ada@example.org",), "oid": ("00-7",), "team": ("a\tb",)},
)
MAPPINGS: dict[str, Any] = {"username": {"prefix": "saml:"}}


def map_user(identity: SAMLIdentity = ADA, **mappings: Any) -> Identity:
    return map_identity(identity, trusting(mappings={**MAPPINGS, **mappings}))


def having(**attributes: tuple[str, ...]) -> SAMLIdentity:
    return replace(ADA, attributes={**ADA.attributes, **attributes})


def refuse(identity: SAMLIdentity, **mappings: Any) -> str:
    with pytest.raises(Unauthorized) as refusal:
        map_user(identity, **mappings)
    return refusal.value.why


def test_the_least_that_can_be_mapped() -> None:
    assert map_user() == Identity(
        issuer=IDP,
        username="saml:ada@example.com",
        claims={
            "nameID": "ada@example.com",
            "nameIDFormat": PERSISTENT,
            "assertionID": "_a1",
            "attributes": ADA.attributes,
        },
        expires_at=NOW + 3600,
    )


def test_all_that_can_be_mapped() -> None:
    user = map_user(
        username={"attribute": "mail", "prefix": ""},
        groups={"attribute": "groups", "prefix": "idp:"},
        uid={"attribute": "oid"},
        extra=[{"key": "example.com/groups", "attribute": "groups"}, {"key": "example.com/none", "attribute": "none"}],
    )
    assert (user.username, user.groups, user.uid) == ("ada@example.org", ("idp:dev", "idp:ops"), "00-7")
    assert user.extra == {"example.com/groups": ("dev", "ops")}


def test_policies_see_the_attributes_as_claims() -> None:
    claims = list(flatten_claims(map_user().claims))
    assert ("attributes.groups", "ops") in claims
    assert ("nameID", "ada@example.com") in claims


def test_no_group_attribute_is_no_groups() -> None:
    assert map_user(groups={"attribute": "none", "prefix": ""}).groups == ()


MAIL = {"username": {"attribute": "mail", "prefix": ""}}
GROUPS = {"groups": {"attribute": "groups", "prefix": ""}}
UID = {"uid": {"attribute": "oid"}}
EXTRA = {"extra": [{"key": "example.com/team", "attribute": "team"}]}


@pytest.mark.parametrize(
    ("why", "identity", "mappings"),
    [
        pytest.param("transient_name", replace(ADA, name_id_format=TRANSIENT), {}, id="transient"),
        pytest.param("reserved_name", replace(ADA, name_id="system:admin"), {"username": {"prefix": ""}}, id="system:"),
        pytest.param(
            "reserved_name", replace(ADA, name_id="tem:admin"), {"username": {"prefix": "sys"}}, id="by prefix"
        ),
        pytest.param("reserved_name", having(mail=("system:admin",)), MAIL, id="system: by an attribute"),
        pytest.param("reserved_name", having(groups=("dev", "system:masters")), GROUPS, id="system: as a group"),
        pytest.param("bad_attribute", having(mail=()), MAIL, id="no user name"),
        pytest.param("bad_attribute", having(mail=("ada", "eve")), MAIL, id="two user names"),
        pytest.param("bad_attribute", having(mail=("",)), MAIL, id="an empty user name"),
        pytest.param("bad_attribute", having(mail=("a" * 257,)), MAIL, id="a long user name"),
        pytest.param("bad_attribute", having(mail=("ada\neve",)), MAIL, id="a user name of two lines"),
        pytest.param("bad_attribute", having(groups=("dev", "")), GROUPS, id="an empty group"),
        pytest.param("bad_attribute", having(groups=("dev\u202e",)), GROUPS, id="a group that runs backwards"),
        pytest.param("bad_attribute", having(oid=()), UID, id="no uid"),
        pytest.param("bad_attribute", having(oid=("1", "2")), UID, id="two uids"),
        pytest.param("bad_attribute", ADA, EXTRA, id="an extra that cannot be shown"),
        pytest.param("bad_attribute", having(team=("a" * 1025,)), EXTRA, id="a long extra"),
        pytest.param("bad_attribute", having(team=("a",) * 65), EXTRA, id="many extras"),
        pytest.param(
            "groups_overage",
            replace(ADA, attributes={GROUPS_ELSEWHERE: ("https://graph.example/groups",)}),
            GROUPS,
            id="too many groups to be listed",
        ),
    ],
)
def test_what_cannot_be_mapped(why: str, identity: SAMLIdentity, mappings: dict[str, Any]) -> None:
    assert refuse(identity, **mappings) == why


def test_a_transient_name_does_where_the_user_is_named_by_an_attribute() -> None:
    assert map_user(replace(ADA, name_id_format=TRANSIENT), **MAIL).username == "ada@example.org"


class UsedInMemory:
    """The smallest thing that remembers."""

    def __init__(self) -> None:
        self.until: dict[tuple[str, str], float] = {}

    def remember(self, assertion_id: str, issuer: str, until: float) -> bool:
        is_new = (issuer, assertion_id) not in self.until
        self.until.setdefault((issuer, assertion_id), until)
        return is_new


def test_an_assertion_is_used_once() -> None:
    used = UsedInMemory()
    require_first_use(ADA, used)
    require_first_use(replace(ADA, issuer="https://other.example"), used)
    with pytest.raises(Unauthorized) as refusal:
        require_first_use(ADA, used)
    assert refusal.value.why == "replayed"
    assert used.until[IDP, "_a1"] == ADA.not_on_or_after

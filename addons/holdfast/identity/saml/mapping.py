"""How a verified assertion becomes a user, by the rules of its provider.

Names are held to the same rules as those of tokens (`holdfast.identity.mapping`): fit to be shown, and none is
`system:...`. Policies match, and records keep, what the assertion said as claims: `nameID`, `nameIDFormat`,
`assertionID`, and each attribute as `attributes.NAME`.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.exchange import Identity
from holdfast.identity.mapping import MAX_EXTRA_VALUES, RESERVED_PREFIX, is_name, is_value
from holdfast.settings.saml import TRANSIENT

if TYPE_CHECKING:
    from holdfast.identity.saml.assertion import SAMLIdentity
    from holdfast.settings.saml import AttributeMappings, SAMLProvider

GROUPS_ELSEWHERE = "http://schemas.microsoft.com/claims/groups.link"
"""What Entra ID writes, in place of the groups, for a user who is in more than 150."""


def map_identity(identity: SAMLIdentity, provider: SAMLProvider) -> Identity:
    """The user that a verified assertion of `provider` is about. Raises Unauthorized."""
    mappings = provider.mappings
    return Identity(
        issuer=identity.issuer,
        username=_allow(mappings.username.prefix + _map_username(identity, mappings)),
        groups=_map_groups(identity, mappings),
        uid="" if mappings.uid is None else _read_one(identity, mappings.uid.attribute),
        extra=MappingProxyType(_map_extra(identity, mappings)),
        claims=MappingProxyType(
            {
                "nameID": identity.name_id,
                "nameIDFormat": identity.name_id_format,
                "assertionID": identity.assertion_id,
                "attributes": identity.attributes,
            }
        ),
        expires_at=identity.expires_at,
    )


def _map_username(identity: SAMLIdentity, mappings: AttributeMappings) -> str:
    if mappings.username.attribute:
        return _read_one(identity, mappings.username.attribute)
    # One person under two names could sign for what they asked for themselves.
    if identity.name_id_format == TRANSIENT:
        raise Unauthorized(
            "the assertion's NameID is transient; have the provider send a lasting one", "transient_name"
        )
    return identity.name_id


def _map_groups(identity: SAMLIdentity, mappings: AttributeMappings) -> tuple[str, ...]:
    if mappings.groups is None:
        return ()
    groups = identity.attributes.get(mappings.groups.attribute)
    if groups is None and GROUPS_ELSEWHERE in identity.attributes:
        raise Unauthorized(
            "the user's groups were too many to be in the assertion; have the provider list only groups of this "
            "application",
            "groups_overage",
        )
    if not all(map(is_name, groups or ())):
        raise _unusable(mappings.groups.attribute)
    return tuple(_allow(mappings.groups.prefix + group) for group in groups or ())


def _map_extra(identity: SAMLIdentity, mappings: AttributeMappings) -> dict[str, tuple[str, ...]]:
    extra: dict[str, tuple[str, ...]] = {}
    for mapping in mappings.extra:
        values = identity.attributes.get(mapping.attribute, ())
        if len(values) > MAX_EXTRA_VALUES or not all(map(is_value, values)):
            raise _unusable(mapping.attribute)
        if values:
            extra[mapping.key] = values
    return extra


def _read_one(identity: SAMLIdentity, attribute: str) -> str:
    values = identity.attributes.get(attribute, ())
    if len(values) != 1 or not is_name(values[0]):
        raise _unusable(attribute)
    return values[0]


def _unusable(attribute: str) -> Unauthorized:
    return Unauthorized(f"the assertion's attribute {attribute} is missing or not usable", "bad_attribute")


def _allow(name: str) -> str:
    if name.startswith(RESERVED_PREFIX):
        raise Unauthorized("the assertion claims a name that Kubernetes keeps for itself (system:)", "reserved_name")
    return name

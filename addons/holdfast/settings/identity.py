"""The section `identity`: who may ask, in the shape of Kubernetes' AuthenticationConfiguration.

A file that the API server loads with `--authentication-config` (apiserver.config.k8s.io/v1) loads here as it is;
its `jwt` list and that of the settings file make one list. What Kubernetes lacks is written beside what it has:
`jwksURL`, `jwksFile`, `certificateAuthorityFile`, `algorithms`, `maxLifetimeSeconds` and `systemNames` of an issuer,
and `saml`, with SAML's providers. What is checked here is what can be checked of each value alone (k8s.io/apiserver
pkg/apis/apiserver/validation); expressions are compiled by `holdfast.identity`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field, field_validator, model_validator

from holdfast.errors import ConfigurationError
from holdfast.settings.saml import SAMLProvider, include_provider_certificates
from holdfast.settings.section import FilePath, Misfit, Section, parse_model, read_yaml
from holdfast.settings.values import check_certificates, check_extra_key, check_secure, check_url, require_once

if TYPE_CHECKING:
    from collections.abc import Sequence

SPIFFE = "spiffe://"

_TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"

type ApiVersion = Literal[
    "apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"
]
type Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm.__value__)


class Issuer(Section):
    """An OIDC issuer, and what its tokens must be like."""

    url: str = Field(
        description="The exact `iss` of its tokens; `spiffe://TRUST-DOMAIN` for SPIFFE's, which may have none."
    )
    discovery_url: str | None = Field(
        None, alias="discoveryURL", description="Where its discovery document is, when not at the usual place."
    )
    jwks_url: str | None = Field(None, alias="jwksURL", description="Keys from this address, without discovery.")
    jwks_file: FilePath | None = Field(None, description="Keys from this JWKS file, without discovery.")
    certificate_authority: str = Field("", description="CA of the issuer's HTTPS, PEM itself; else the system's.")
    certificate_authority_file: FilePath | None = Field(None, description="The same from a file.")
    audiences: tuple[str, ...] = Field(description="`aud` must hold one of these.", min_length=1)
    audience_match_policy: Literal["", "MatchAny"] = Field(
        "", description="`MatchAny`; may be left out with one audience, as in Kubernetes."
    )
    egress_selector_type: Literal["", "controlplane", "cluster"] = Field(
        "", description="Read and without effect: the gateway reaches issuers as its host does."
    )
    algorithms: tuple[Algorithm, ...] = Field(
        ALGORITHMS, description="Signature algorithms that are accepted.", min_length=1
    )
    max_lifetime_seconds: int = Field(86400, gt=0, description="Tokens that live longer are refused.")
    system_names: tuple[str, ...] = Field(
        (), description="Prefixes of `system:` names that it may give, such as `system:serviceaccount`; else none."
    )

    @field_validator("url")
    @classmethod
    def _name(cls, url: str) -> str:
        if url.startswith(SPIFFE):
            if re.fullmatch(_TRUST_DOMAIN, url.removeprefix(SPIFFE)) is None:
                raise ValueError("spiffe:// and a trust domain, without a path")
        else:
            check_url(url)
        return url

    @field_validator("discovery_url", "jwks_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None:
            check_secure(url)
        return url

    @field_validator("certificate_authority")
    @classmethod
    def _certificates(cls, pem: str) -> str:
        if pem:
            check_certificates(pem)
        return pem

    @field_validator("system_names")
    @classmethod
    def _narrow(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name.startswith("system:") and len(name) > len("system:") for name in names):
            raise ValueError("prefixes that begin with `system:` and go on")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> Issuer:
        given = [place for place in (self.discovery_url, self.jwks_url, self.jwks_file) if place is not None]
        if len(given) > 1:
            raise ValueError("one of discoveryURL, jwksURL and jwksFile")
        if not given and not self.url.startswith("https://"):
            raise ValueError("an issuer is discovered over https://, or has a jwksURL or jwksFile")
        if self.discovery_url is not None and self.discovery_url.rstrip("/") == self.url.rstrip("/"):
            raise ValueError("a discoveryURL that is not url: the whole address of the discovery document")
        if self.certificate_authority and self.certificate_authority_file is not None:
            raise ValueError("certificateAuthority (PEM) or certificateAuthorityFile, not both")
        return self

    @model_validator(mode="after")
    def _distinct_audiences(self) -> Issuer:
        if "" in self.audiences or len(set(self.audiences)) < len(self.audiences):
            raise ValueError("audiences that are not empty, each once")
        if len(self.audiences) > 1 and not self.audience_match_policy:
            raise ValueError("`audienceMatchPolicy: MatchAny` with several audiences")
        return self


class PrefixedClaimOrExpression(Section):
    """A claim with a prefix, or a CEL expression over `claims`."""

    claim: str = Field("", description="The claim.")
    prefix: str | None = Field(None, description="Put before the claim's value; may be empty, must be given.")
    expression: str = Field("", description="CEL expression over `claims`, instead of a claim.")

    @model_validator(mode="after")
    def _one(self) -> PrefixedClaimOrExpression:
        if self.claim and self.expression:
            raise ValueError("claim or expression, not both")
        if self.expression and self.prefix is not None:
            raise ValueError("no prefix with an expression, which makes the whole name")
        if self.claim and self.prefix is None:
            raise ValueError('a prefix with the claim; `prefix: ""` where there shall be none')
        return self


class ClaimOrExpression(Section):
    """A claim, or a CEL expression over `claims`."""

    claim: str = Field("", description="The claim.")
    expression: str = Field("", description="CEL expression over `claims`, instead of a claim.")

    @model_validator(mode="after")
    def _one(self) -> ClaimOrExpression:
        if self.claim and self.expression:
            raise ValueError("claim or expression, not both")
        return self


class ExtraMapping(Section):
    """An extra attribute of the user."""

    key: str = Field(description="Lower-case `DOMAIN/PATH`, not of Kubernetes' own domains nor of `holdfast.dev`.")
    value_expression: str = Field(
        description="CEL expression over `claims`: text or a list of texts; empty leaves it out.", min_length=1
    )

    @field_validator("key")
    @classmethod
    def _own_domain(cls, key: str) -> str:
        check_extra_key(key)
        return key


class ClaimMappings(Section):
    """How claims become a user."""

    username: PrefixedClaimOrExpression = Field(description="The user name.")
    groups: PrefixedClaimOrExpression = Field(
        default_factory=PrefixedClaimOrExpression, description="The groups: one text, or a list of them."
    )
    uid: ClaimOrExpression = Field(default_factory=ClaimOrExpression, description="The user's lasting ID.")
    extra: tuple[ExtraMapping, ...] = Field((), description="Extra attributes.")

    @model_validator(mode="after")
    def _named(self) -> ClaimMappings:
        if not (self.username.claim or self.username.expression):
            raise ValueError("username with a claim or an expression")
        require_once("extra.{}.key", (mapping.key for mapping in self.extra), "each key of extra once")
        return self


class ClaimValidationRule(Section):
    """What tokens must hold: a claim of this value, or a CEL expression over `claims` that is true."""

    claim: str = Field("", description="A claim, text, that must be there.")
    required_value: str = Field("", description="Its value.")
    expression: str = Field("", description="CEL expression over `claims`; must be true.")
    message: str = Field("", description="Told to callers for whom the expression is false.")

    @model_validator(mode="after")
    def _one(self) -> ClaimValidationRule:
        if bool(self.claim) == bool(self.expression):
            raise ValueError("claim or expression: one of them")
        if self.claim and self.message:
            raise ValueError("no message with a claim")
        if self.expression and self.required_value:
            raise ValueError("no requiredValue with an expression")
        return self


class UserValidationRule(Section):
    """What users must be like: a CEL expression over `user` that is true."""

    expression: str = Field(description="CEL expression over `user`; must be true.", min_length=1)
    message: str = Field("", description="Told to callers for whom the expression is false.")


class JWTAuthenticator(Section):
    """One issuer, and how the claims of its tokens become a user."""

    issuer: Issuer = Field(description="The issuer.")
    claim_validation_rules: tuple[ClaimValidationRule, ...] = Field((), description="All must hold.")
    claim_mappings: ClaimMappings = Field(description="How claims become a user.")
    user_validation_rules: tuple[UserValidationRule, ...] = Field((), description="All must hold.")

    @model_validator(mode="after")
    def _distinct_rules(self) -> JWTAuthenticator:
        rules, of_users = self.claim_validation_rules, self.user_validation_rules
        require_once("claimValidationRules.{}.claim", (rule.claim for rule in rules), "each rule once")
        require_once("claimValidationRules.{}.expression", (rule.expression for rule in rules), "each rule once")
        require_once("userValidationRules.{}.expression", (rule.expression for rule in of_users), "each rule once")
        return self


class AnonymousAuthCondition(Section):
    """A path."""

    path: str = Field(description="The path.")


class AnonymousAuthConfig(Section):
    """Only where it is off: no call without a token passes the gateway, whatever its path."""

    enabled: bool = Field(description="Whether the API server knows anonymous users.")
    conditions: tuple[AnonymousAuthCondition, ...] = Field((), description="For these paths only.")

    @field_validator("enabled")
    @classmethod
    def _off(cls, enabled: bool) -> bool:
        if enabled:
            raise ValueError("false: the gateway lets no call pass without a token, whatever its path")
        return enabled


class AuthenticationConfiguration(Section):
    """The API server's own file."""

    api_version: ApiVersion = Field(description="`apiserver.config.k8s.io/v1`.")
    kind: Literal["AuthenticationConfiguration"] = Field(description="`AuthenticationConfiguration`.")
    jwt: tuple[JWTAuthenticator, ...] = Field((), description="Trusted issuers.")
    anonymous: AnonymousAuthConfig | None = Field(None, description="Off, if it is there.")

    @model_validator(mode="after")
    def _distinct_issuers(self) -> AuthenticationConfiguration:
        _require_issuers_once(self.jwt)
        return self


class OwnTokens(Section):
    """Short tokens that Holdfast signs itself, in exchange for those of others."""

    url: str = Field(description="Their `iss`; the address of the approvals API as callers reach it.")
    lifetime_seconds: int = Field(600, ge=60, le=3600, description="How long they live at most.")
    keys: FilePath | None = Field(
        None, description="Folder of the keys that sign them, shared by all replicas; `token-keys` under stateDir."
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        check_secure(url)
        if url.endswith("/"):
            raise ValueError("an https:// address without a slash at its end")
        if url.endswith(("/token", "/jwks")):
            raise ValueError("the address of the approvals API, under which /token and /jwks are found")
        return url


class IdentitySection(Section):
    """Who may ask."""

    tokens: OwnTokens | None = Field(None, description="Tokens of Holdfast's own; none unless it is set.")
    jwt: tuple[JWTAuthenticator, ...] = Field((), description="Trusted issuers.")
    authentication_configuration: FilePath | None = Field(
        None, description="An AuthenticationConfiguration file of the API server; its issuers are trusted too."
    )
    saml: tuple[SAMLProvider, ...] = Field((), description="Trusted SAML identity providers.")

    @property
    def issuers(self) -> tuple[str, ...]:
        """Everybody whose word is taken: issuers by their URL, providers by their entityID."""
        urls = tuple(authenticator.issuer.url for authenticator in self.jwt)
        return urls + tuple(provider.entity_id for provider in self.saml)

    @model_validator(mode="after")
    def _distinct_providers(self) -> IdentitySection:
        names = (provider.entity_id for provider in self.saml)
        require_once("saml.{}.entityID", names, "each entityID of saml once")
        return self

    @model_validator(mode="after")
    def _some(self) -> IdentitySection:
        if not (self.jwt or self.saml) and self.authentication_configuration is None:
            raise ValueError("jwt, saml, or authenticationConfiguration")
        for place, provider in enumerate(self.saml):
            self._check_addresses(f"saml.{place}", provider)
        if self.tokens is not None and self.tokens.url in self.issuers:
            expected = (
                "an address that is no issuer.url of jwt and no entityID of saml: its own tokens, Holdfast trusts"
            )
            raise Misfit("tokens.url", self.tokens.url, expected)
        _require_issuers_once(self.jwt)
        return self

    def _check_addresses(self, place: str, provider: SAMLProvider) -> None:
        """Its providers talk to the one place that takes what they say: the token endpoint and what is beside it."""
        if self.tokens is None:
            raise Misfit("tokens", None, "tokens beside saml: an assertion is exchanged for a token of Holdfast's own")
        for key, found, expected in (
            ("assertionConsumerServiceURL", provider.assertion_consumer_service_url, f"{self.tokens.url}/saml/acs"),
            ("tokenURL", provider.token_url, f"{self.tokens.url}/token"),
        ):
            if found != expected:
                raise Misfit(f"{place}.{key}", found, f"{expected}, as tokens.url has it")


def include_configuration(section: IdentitySection) -> IdentitySection:
    """The section with the issuers of its AuthenticationConfiguration file after its own.

    Raises ConfigurationError.
    """
    file = section.authentication_configuration
    if file is None:
        return section
    found = parse_model(AuthenticationConfiguration, read_yaml(file), file)
    if not found.jwt:
        raise ConfigurationError(f"{file}: jwt: found no issuer; expected at least one.")
    for place, authenticator in enumerate(found.jwt):
        if authenticator.issuer.url in section.issuers:
            told = f"jwt.{place}.issuer.url: found {authenticator.issuer.url!r}"
            raise ConfigurationError(f"{file}: {told}; expected: each issuer.url once, in it and in the settings file.")
    merged = {"jwt": [*section.jwt, *found.jwt], "saml": section.saml, "tokens": section.tokens}
    return parse_model(IdentitySection, merged, file)


def include_certificates(section: IdentitySection) -> IdentitySection:
    """The section with the text of every `certificatesFile` in place of its name. Raises ConfigurationError."""
    return section.model_copy(update={"saml": tuple(map(include_provider_certificates, section.saml))})


def _require_issuers_once(entries: Sequence[JWTAuthenticator]) -> None:
    urls, documents = (entry.issuer.url for entry in entries), (entry.issuer.discovery_url for entry in entries)
    require_once("jwt.{}.issuer.url", urls, "each issuer.url once")
    require_once("jwt.{}.issuer.discoveryURL", documents, "each issuer.discoveryURL once")

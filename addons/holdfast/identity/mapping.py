"""How the claims of a verified token become a user, by the rules of its issuer.

The order and the outcomes are the API server's (k8s.io/apiserver plugin/pkg/authenticator/token/oidc): the user is
mapped, then the claims must meet their rules, then the user must. Beyond it, names must be fit to be shown and
`system:` names are the issuer's only where its `systemNames` say so, and a token whose groups were too many to list
is refused and not taken for one without groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeGuard

from holdfast.errors import ConfigurationError, Unauthorized
from holdfast.exchange import CREDENTIAL_ID, CREDENTIAL_PREFIX, Identity
from holdfast.identity.expressions import BOOLEAN, CLAIMS, TEXT, TEXTS, USER, Expression, NotEvaluated, Values
from holdfast.identity.serialization import read_strings

if TYPE_CHECKING:
    from holdfast.settings.identity import ClaimOrExpression, JWTAuthenticator, PrefixedClaimOrExpression

MAX_NAME_CHARACTERS = 256
MAX_EXTRA_CHARACTERS = 1024
MAX_EXTRA_VALUES = 64
RESERVED_PREFIX = "system:"


@dataclass(frozen=True, slots=True)
class User:
    """A user as Kubernetes describes one (authentication.k8s.io/v1 UserInfo)."""

    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


class UserMapper:
    """The mappings and rules of one issuer, compiled."""

    def __init__(self, authenticator: JWTAuthenticator) -> None:
        """Raises ConfigurationError that names the field and says what is wrong with its expression."""
        self.issuer = authenticator.issuer
        self._authenticator = authenticator
        mappings = authenticator.claim_mappings
        self._username = self._compile("claimMappings.username.expression", mappings.username.expression, TEXT)
        self._groups = self._compile("claimMappings.groups.expression", mappings.groups.expression, TEXTS)
        self._uid = self._compile("claimMappings.uid.expression", mappings.uid.expression, TEXT)
        self._extra = [
            (entry.key, self._require(f"claimMappings.extra.{place}.valueExpression", entry.value_expression, TEXTS))
            for place, entry in enumerate(mappings.extra)
        ]
        self._claim_rules = [
            (self._require(f"claimValidationRules.{place}.expression", rule.expression, BOOLEAN), rule.message)
            for place, rule in enumerate(authenticator.claim_validation_rules)
            if rule.expression
        ]
        self._user_rules = [
            (self._require(f"userValidationRules.{place}.expression", rule.expression, BOOLEAN, USER), rule.message)
            for place, rule in enumerate(authenticator.user_validation_rules)
        ]
        self._check_email()

    def identify(self, claims: Mapping[str, Any], expires_at: float) -> Identity:
        """The identity that verified claims describe, until `expires_at`. Raises Unauthorized."""
        user = self.map(claims)
        return Identity(self.issuer.url, user.username, user.groups, user.uid, user.extra, claims, expires_at)

    def map(self, claims: Mapping[str, Any]) -> User:
        """The user that verified claims describe. Raises Unauthorized."""
        self._check_overage(claims)
        values = Values(CLAIMS, claims)
        user = User(
            username=self._map_username(claims, values),
            groups=self._map_groups(claims, values),
            uid=self._map_uid(claims, values),
            extra=MappingProxyType(self._map_extra(claims, values)),
        )
        self._check_claims(claims, values)
        self._check_user(user)
        return user

    def _compile(self, field_name: str, text: str, kinds: frozenset[str], variable: str = CLAIMS) -> Expression | None:
        return self._require(field_name, text, kinds, variable) if text else None

    def _require(self, field_name: str, text: str, kinds: frozenset[str], variable: str = CLAIMS) -> Expression:
        try:
            return Expression(text, variable, kinds, field_name)
        except ValueError as error:
            raise self._faulty(field_name, f"the expression {text!r} {error}") from error

    def _faulty(self, field_name: str, what: str) -> ConfigurationError:
        return ConfigurationError(f"issuer {self.issuer.url}: {field_name}: {what}.")

    def _check_email(self) -> None:
        """An address that nobody has verified is no name (KEP-3331): whoever maps it must look."""
        if self._username is None or not self._username.reads("email"):
            return
        others = [self._username, *(value for _, value in self._extra), *(rule for rule, _ in self._claim_rules)]
        if not any(expression.reads("email_verified") for expression in others):
            raise self._faulty(
                "claimMappings.username.expression",
                "it uses claims.email, so it, an expression of extra or a claimValidationRule must use "
                "claims.email_verified: `claims.?email_verified.orValue(true) == true`",
            )

    def _map_username(self, claims: Mapping[str, Any], values: Values) -> str:
        mapping = self._authenticator.claim_mappings.username
        if self._username is not None:
            name = _evaluate(self._username, values, "what its user name is made of")
        else:
            name = claims.get(mapping.claim)
            if mapping.claim == "email" and claims.get("email_verified", True) is not True:
                raise Unauthorized("the token's email is not verified by its issuer", "email_not_verified")
        if mapping.claim and mapping.claim not in claims:
            raise Unauthorized(
                f"the token has no claim {mapping.claim}; ask its issuer for that with a scope, or map another claim",
                "bad_claim",
            )
        if not is_name(name):
            raise Unauthorized(f"the token's {_source(mapping)} is not a usable user name", "bad_claim")
        return self._allow(f"{mapping.prefix or ''}{name}")

    def _map_groups(self, claims: Mapping[str, Any], values: Values) -> tuple[str, ...]:
        mapping = self._authenticator.claim_mappings.groups
        if self._groups is not None:
            groups = _read_texts(_evaluate(self._groups, values, "what its groups are made of"))
        elif mapping.claim:
            groups = read_strings(claims, mapping.claim)
        else:
            return ()
        if groups is None or not all(is_name(group) for group in groups):
            raise Unauthorized(f"the token's {_source(mapping)} is not a list of usable group names", "bad_claim")
        return tuple(self._allow(f"{mapping.prefix or ''}{group}") for group in groups)

    def _check_overage(self, claims: Mapping[str, Any]) -> None:
        """OpenID Connect Core 5.6.2: claims that are kept elsewhere are listed in `_claim_names`.

        In tokens of the implicit flow, which callers can choose, Entra ID says `hasgroups` and not where they are.
        """
        listed = claims.get("_claim_names")
        elsewhere = set(listed) if isinstance(listed, Mapping) else set()
        if claims.get("hasgroups"):
            elsewhere.add("groups")
        if any(map(self._reads, elsewhere - claims.keys())):
            raise Unauthorized(
                "the token's groups were too many to be in it; have the issuer list only groups of this application",
                "groups_overage",
            )

    def _reads(self, claim: str) -> bool:
        """Whether a user's groups, or whether the user is let in at all, may hang on this claim."""
        mapped = [self._username, self._groups, self._uid, *(value for _, value in self._extra)]
        rules = [rule for rule, _ in self._claim_rules]
        return claim == self._authenticator.claim_mappings.groups.claim or any(
            expression is not None and expression.reads(claim) for expression in (*mapped, *rules)
        )

    def _map_uid(self, claims: Mapping[str, Any], values: Values) -> str:
        mapping = self._authenticator.claim_mappings.uid
        if self._uid is not None:
            uid = _evaluate(self._uid, values, "what its uid is made of")
        elif mapping.claim:
            uid = claims.get(mapping.claim)
        else:
            return ""
        if uid != "" and not is_name(uid):
            raise Unauthorized(f"the token's {_source(mapping)} is not a usable uid", "bad_claim")
        return str(uid)

    def _map_extra(self, claims: Mapping[str, Any], values: Values) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        token_id = claims.get("jti")
        if is_name(token_id):
            extra[CREDENTIAL_ID] = (CREDENTIAL_PREFIX + token_id,)
        for key, expression in self._extra:
            found = _read_texts(_evaluate(expression, values, f"what its {key} is made of"))
            if found is None or len(found) > MAX_EXTRA_VALUES or not all(map(is_value, found)):
                raise Unauthorized(f"the token gives no usable value for {key}", "bad_claim")
            if found:
                extra[key] = found
        return extra

    def _check_claims(self, claims: Mapping[str, Any], values: Values) -> None:
        for place, rule in enumerate(self._authenticator.claim_validation_rules):
            if rule.claim and claims.get(rule.claim) != rule.required_value:
                raise Unauthorized(
                    f"the token's {rule.claim} is not the one that is asked for here",
                    "claim_rule",
                    f"claimValidationRules.{place}: {rule.claim} {_tell_claim(claims, rule.claim)}",
                )
        for expression, message in self._claim_rules:
            _require_true(expression, values, message, "claim_rule")

    def _check_user(self, user: User) -> None:
        if not self._user_rules:
            return
        told = {"username": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra}
        values = Values(USER, told)
        for expression, message in self._user_rules:
            _require_true(expression, values, message, "user_rule")

    def _allow(self, name: str) -> str:
        if name.startswith(RESERVED_PREFIX) and not name.startswith(self.issuer.system_names):
            raise Unauthorized("the token claims a name that Kubernetes keeps for itself (system:)", "reserved_name")
        return name


def _evaluate(expression: Expression, values: Values, lacking: str) -> Any:
    try:
        return expression.evaluate(values)
    except NotEvaluated as error:
        detail = f"{expression.setting}: {error}"
        raise Unauthorized(f"the token lacks {lacking}", "expression_failed", detail) from error


def _require_true(expression: Expression, values: Values, message: str, why: str) -> None:
    if _evaluate(expression, values, "what a rule of its issuer asks for") is not True:
        detail = f"{expression.setting}: {expression.text}"
        raise Unauthorized(message or "the token does not meet the rules for its issuer", why, detail)


def _tell_claim(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if value is None:
        return "is not there"
    return f"is {value!r}" if isinstance(value, str) else "is no text"


def _source(mapping: PrefixedClaimOrExpression | ClaimOrExpression) -> str:
    return mapping.claim or "claims"


def _read_texts(value: object) -> tuple[str, ...] | None:
    """What an expression gives: nothing, one text, or several, of which empty ones are left out; None for all else."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, (tuple, list)) and all(isinstance(item, str) for item in value):
        return tuple(item for item in value if item)
    return None


def is_name(value: object) -> TypeGuard[str]:
    """Whether this can be the name of a user or a group."""
    # Printable leaves out control, format (bidirectional, zero-width) and line-separating characters: names are
    # shown to approvers, put into headers and matched by policy.
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable()


def is_value(value: str) -> bool:
    """Whether this can be a value of an extra attribute."""
    return len(value) <= MAX_EXTRA_CHARACTERS and value.isprintable()

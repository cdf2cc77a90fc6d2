"""What the gateway's credential must be allowed to do so that it can impersonate: as questions, and as a role.

The API server asks its authorizer for the verb `impersonate` on each part of the user (k8s.io/apiserver
`pkg/endpoints/filters/impersonation`): `users` or `serviceaccounts` and `groups` by name, and, in
authentication.k8s.io, `uids` by name and `userextras/KEY` by value.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from holdfast.credential.impersonation import AUTHENTICATED, ISSUER_KEY, RUN_KEY
from holdfast.exchange import CREDENTIAL_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.settings.identity import IdentitySection

ROLE_NAME = "holdfast-impersonator"
VERB = "impersonate"
UIDS = "uids"
_RBAC = "rbac.authorization.k8s.io"
_AUTHENTICATION = "authentication.k8s.io"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Right:
    """To impersonate this kind of thing; `name` is the one that is certain to be asked for, empty where any may be."""

    api_group: str
    resource: str
    subresource: str = ""
    name: str = ""

    @property
    def combined_resource(self) -> str:
        """RBAC's spelling: `userextras/KEY`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def impersonation_rights(identity: IdentitySection) -> tuple[Right, ...]:
    """Every right that calls of these issuers and SAML providers can need."""
    tokens = [authenticator.claim_mappings for authenticator in identity.jwt]
    assertions = [provider.mappings for provider in identity.saml]
    names = [name for authenticator in identity.jwt for name in authenticator.issuer.system_names]
    keys = [entry.key for mapping in tokens for entry in mapping.extra]
    keys += [entry.key for mapping in assertions for entry in mapping.extra]
    rights = [Right("", "users"), Right("", "groups", name=AUTHENTICATED), Right("", "groups")]
    if any(_SERVICE_ACCOUNT.startswith(name) or name.startswith(_SERVICE_ACCOUNT) for name in names):
        rights.append(Right("", "serviceaccounts"))
    uids = [mapping.uid.claim or mapping.uid.expression for mapping in tokens]
    if any(uids) or any(mapping.uid for mapping in assertions):
        rights.append(Right(_AUTHENTICATION, UIDS))
    issuers = [authenticator.issuer.url for authenticator in identity.jwt]
    issuers += [provider.entity_id for provider in identity.saml]
    rights += [Right(_AUTHENTICATION, "userextras", ISSUER_KEY, issuer) for issuer in issuers]
    keys = [RUN_KEY, CREDENTIAL_ID, *dict.fromkeys(keys)]
    return (*rights, *(Right(_AUTHENTICATION, "userextras", key) for key in keys))


def role_manifests(rights: Sequence[Right], namespace: str, name: str) -> list[dict[str, Any]]:
    """The ClusterRole with these rights, whatever the names, and its binding to a service account."""
    return [
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": ROLE_NAME},
            "rules": [
                {
                    "apiGroups": [group],
                    "resources": list(dict.fromkeys(right.combined_resource for right in members)),
                    "verbs": [VERB],
                }
                for group, members in groupby(rights, attrgetter("api_group"))
            ],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ROLE_NAME},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": ROLE_NAME},
        },
    ]


def access_review(right: Right) -> dict[str, Any]:
    """The question whether we have it (authorization.k8s.io/v1 SelfSubjectAccessReview)."""
    asked = {
        "verb": VERB,
        "group": right.api_group,
        "resource": right.resource,
        "subresource": right.subresource,
        "name": right.name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }

"""A small world for the tests of what people use: settings, an issuer, an audit database, holds in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from audit.entries import open_test_ledger
from holdfast.approval.hold import hold_id
from holdfast.approval.store import HoldStore
from holdfast.audit.store import AuditStore
from holdfast.certificates import make_authority, write_private
from holdfast.database import Database
from holdfast.exchange import Approvers, AuditID, Hold, HoldState
from holdfast.identity.dev_issuer import DevIssuer
from holdfast.settings import Settings, load_settings

if TYPE_CHECKING:
    from holdfast.audit.ledger import Ledger

ISSUER = "https://issuer.test"
SETTINGS = """
cluster: testing
stateDir: state
upstream: {server: "https://127.0.0.1:1", certificateAuthority: listener.crt, tokenFile: gateway.token}
listen: {certificate: listener.crt, privateKey: listener.key, certificateAuthority: ca.crt}
identity:
  jwt:
  - issuer: {url: "https://issuer.test", audiences: [holdfast], jwksFile: jwks.json}
    claimMappings: {username: {claim: sub, prefix: ""}, groups: {claim: groups, prefix: ""}}
policies: [policy.yaml]
approvals: {port: 0}
"""
GATEWAY = "https://gateway.test"
SAML = f"""\
  tokens: {{url: "{GATEWAY}"}}
  saml:
  - entityID: "https://id.test/saml"
    certificatesFile: saml.crt
    singleSignOnURL: "https://id.test/sso"
    serviceProviderEntityID: "{GATEWAY}/saml"
    assertionConsumerServiceURL: "{GATEWAY}/saml/acs"
    tokenURL: "{GATEWAY}/token"
    mappings: {{username: {{prefix: "saml:"}}}}
"""
POLICY = """
apiVersion: holdfast.dev/v1
kind: Policy
metadata: {name: testing}
rules:
- name: read-pods
  effect: allow
  subjects: [{groups: [agents]}]
  verbs: [get, list]
  apiGroups: [""]
  resources: [pods]
"""
CASES = """
apiVersion: holdfast.dev/v1
kind: PolicyCases
cases:
- name: an agent reads pods
  user: agent
  groups: [agents]
  request: GET /api/v1/namespaces/web/pods
  expect: allow
- name: nobody deletes pods
  user: agent
  groups: [agents]
  request: DELETE /api/v1/namespaces/web/pods/x
  expect: deny
"""


@dataclass(frozen=True)
class World:
    """Everything under one folder; `issuer` mints the tokens that the settings trust."""

    folder: Path
    issuer: DevIssuer

    @cached_property
    def settings(self) -> Settings:
        return load_settings(self.folder / "holdfast.yaml")

    @cached_property
    def database(self) -> Database:
        return Database.open(self.settings.database_url)

    @property
    def holds(self) -> HoldStore:
        return HoldStore(self.database)

    @property
    def audit(self) -> AuditStore:
        return AuditStore(self.database)

    @cached_property
    def ledger(self) -> Ledger:
        """Another replica's, so that the gateway and the console of these settings can run beside it."""
        return open_test_ledger(self.folder, self.database, replica="other")

    def token(self, user: str, *groups: str) -> str:
        return self.issuer.mint(user, groups)

    def token_file(self, user: str, *groups: str) -> Path:
        file = self.folder / f"{user}.token"
        file.write_text(self.token(user, *groups))
        return file

    def add_hold(self, number: int = 0, *, user: str = "agent", wait: timedelta = timedelta(minutes=5)) -> Hold:
        now = datetime.now(UTC)
        hold = Hold(
            id=hold_id((number << 6).to_bytes(7, "big")),
            audit_id=AuditID(f"00000000-0000-0000-0000-{number:012d}"),
            digest=f"{number:064x}",
            state=HoldState.PENDING,
            rule="delete-namespace",
            reason="a namespace takes everything in it along",
            issuer=ISSUER,
            username=user,
            groups=("agents",),
            verb="delete",
            api_group="",
            resource="namespaces",
            namespace="shop",
            name="shop",
            uri="/api/v1/namespaces/shop",
            body='{"propagationPolicy": "Background"}',
            kubectl="kubectl delete",
            approvers=Approvers(users=("carol",), groups=("platform",)),
            created_at=now,
            expires_at=now + wait,
        )
        self.holds.insert(hold, "replica")
        return hold


def make_world(folder: Path, more: dict[str, object] | None = None) -> World:
    """Write settings (JSON is YAML, so `more` of them are lines too), certificates, keys and policy."""
    issuer = DevIssuer(ISSUER)
    authority = make_authority("test CA", now=datetime.now(UTC))
    pair = authority.issue("holdfast", hosts=("127.0.0.1", "localhost"), now=datetime.now(UTC))
    write_private(folder / "ca.crt", authority.certificate_pem)
    write_private(folder / "listener.crt", pair.certificate_pem)
    write_private(folder / "listener.key", pair.key_pem)
    contents = {
        "holdfast.yaml": SETTINGS + "".join(f"{key}: {json.dumps(value)}\n" for key, value in (more or {}).items()),
        "policy.yaml": POLICY,
        "policy.cases.yaml": CASES,
        "jwks.json": json.dumps(issuer.jwks()),
        "gateway.token": "gateway-credential",
    }
    for name, text in contents.items():
        (folder / name).write_text(text)
    (folder / "gateway.token").chmod(0o600)
    return World(folder, issuer)


def trust_saml(world: World, *, alone: bool = False, days: int = 365) -> None:
    """Have the settings trust a SAML provider besides, or `alone`, whose certificate is good for so many days yet."""
    now = datetime.now(UTC)
    signer = make_authority("id.test", now=now - timedelta(days=400), days=400 + days)
    write_private(world.folder / "saml.crt", signer.certificate_pem)
    file = world.folder / "holdfast.yaml"
    before, _, rest = file.read_text().partition("  jwt:\n")
    issuers, policies, after = rest.partition("policies:")
    file.write_text(before + SAML + ("" if alone else f"  jwt:\n{issuers}") + policies + after)

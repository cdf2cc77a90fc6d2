"""The workloads of README.md: tokens shaped as their platforms document them, and what they become."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from holdfast.errors import Unauthorized
from holdfast.exchange import Identity
from holdfast.identity.mapping import UserMapper
from holdfast.policy.matching import compile_subjects
from holdfast.policy.rules import Subject
from holdfast.settings.identity import JWTAuthenticator

README = Path(__file__).parents[2] / "README.md"
SECTION = README.read_text(encoding="utf-8").partition("## Who asks")[2].partition("\n## ")[0]
ENTRIES = YAML(typ="safe", pure=True).load(re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)[0])
MAPPERS = {
    entry["issuer"]["url"]: UserMapper(JWTAuthenticator.model_validate(entry, by_alias=True, by_name=False))
    for entry in ENTRIES
}

GITHUB = {
    "iss": "https://token.actions.githubusercontent.com",
    "sub": "repo:my-org/app:environment:prod",
    "aud": "holdfast",
    "repository": "my-org/app",
    "repository_owner": "my-org",
    "ref": "refs/heads/main",
    "ref_protected": "true",
    "environment": "prod",
    "job_workflow_ref": "my-org/app/.github/workflows/deploy.yml@refs/heads/main",
    "run_id": "6912023341",
    "actor": "octocat",
}
GITLAB = {
    "iss": "https://gitlab.com",
    "sub": "project_path:shop/web:ref_type:branch:ref:main",
    "aud": "holdfast",
    "namespace_path": "shop",
    "project_path": "shop/web",
    "ref": "main",
    "ref_protected": "true",
    "pipeline_id": "574",
    "user_login": "ada",
}
SERVICE_ACCOUNT = {
    "iss": "https://kubernetes.default.svc",
    "sub": "system:serviceaccount:build:robot",
    "aud": ("holdfast",),
    "jti": "3a1c",
    "kubernetes.io": {
        "namespace": "build",
        "node": {"name": "n1", "uid": "7"},
        "pod": {"name": "p1", "uid": "8"},
        "serviceaccount": {"name": "robot", "uid": "9c9a"},
        "warnafter": 1800000000,
    },
}
SVID = {"sub": "spiffe://example.org/ns/shop/sa/web", "aud": ("holdfast",)}
BUILDKITE = {
    "iss": "https://agent.buildkite.com",
    "sub": "organization:acme:pipeline:shop:ref:refs/heads/main:commit:9f3:step:deploy",
    "aud": "holdfast",
    "organization_slug": "acme",
    "pipeline_slug": "shop",
    "build_number": 17,
    "build_branch": "main",
    "job_id": "0184",
}
CIRCLECI = {
    "iss": "https://oidc.circleci.com/org/ORG-ID",
    "sub": "org/ORG-ID/project/PROJECT-ID/user/USER-ID",
    "aud": "ORG-ID",
    "oidc.circleci.com/project-id": "PROJECT-ID",
    "oidc.circleci.com/context-ids": ("C1", "C2"),
}
GOOGLE = {
    "iss": "https://accounts.google.com",
    "sub": "110169484474386276334",
    "aud": "holdfast",
    "azp": "1101",
    "email": "ci@my-project.iam.gserviceaccount.com",
    "email_verified": True,
    "google": {"compute_engine": {"project_id": "my-project", "instance_id": "4"}},
}
AZURE = {
    "iss": "https://login.microsoftonline.com/TENANT-ID/v2.0",
    "sub": "f6b8",
    "aud": "api://holdfast",
    "oid": "f6b8",
    "azp": "5f1e",
    "tid": "TENANT-ID",
    "roles": ("deployer",),
    "ver": "2.0",
}
PERSON = {
    "iss": "https://id.example.com",
    "sub": "00u1",
    "aud": "holdfast",
    "email": "ada@example.com",
    "email_verified": True,
    "groups": ("sre",),
}


@pytest.mark.parametrize(
    ("claims", "username", "groups", "subject"),
    [
        (PERSON, "ada@example.com", ("sre",), {"email": ["*@example.com"]}),
        (
            GITHUB,
            "github:repo:my-org/app:environment:prod",
            ("github:my-org",),
            {"repository": ["my-org/*"], "environment": ["prod"], "run_id": ["6912023341"]},
        ),
        (
            GITLAB,
            "gitlab:project_path:shop/web:ref_type:branch:ref:main",
            ("gitlab:shop",),
            {"project_path": ["shop/*"], "ref_protected": ["true"]},
        ),
        (
            SERVICE_ACCOUNT,
            "cluster-a:system:serviceaccount:build:robot",
            ("cluster-a:build",),
            {"kubernetes.io.namespace": ["build"], "kubernetes.io.serviceaccount.name": ["robot"]},
        ),
        (SVID, "spiffe://example.org/ns/shop/sa/web", ("spiffe:example.org",), {"sub": ["spiffe://example.org/ns/*"]}),
        (BUILDKITE, "buildkite:acme/shop", ("buildkite:acme",), {"build_branch": ["main"], "build_number": ["17"]}),
        (CIRCLECI, "circleci:PROJECT-ID", (), {"oidc.circleci.com/context-ids": ["C2"]}),
        (
            GOOGLE,
            "google:ci@my-project.iam.gserviceaccount.com",
            (),
            {"google.compute_engine.project_id": ["my-project"]},
        ),
        (AZURE, "azure:f6b8", ("azure:deployer",), {"tid": ["TENANT-ID"]}),
    ],
)
def test_a_workload_has_a_name_and_claims_that_policy_matches(
    claims: dict[str, Any], username: str, groups: tuple[str, ...], subject: dict[str, list[str]]
) -> None:
    issuer = claims.get("iss", "spiffe://example.org")
    user = MAPPERS[issuer].map(claims)
    assert (user.username, user.groups) == (username, groups)
    identity = Identity(issuer, user.username, user.groups, claims=claims)
    assert compile_subjects([Subject.model_validate({"issuers": [issuer], "claims": subject})])(identity)
    stranger = Identity("https://other.example", user.username, user.groups, claims=claims)
    assert not compile_subjects([Subject.model_validate({"issuers": [issuer], "claims": subject})])(stranger)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        (GITHUB | {"repository_owner": "evil-org"}, "claim_rule"),
        (GOOGLE | {"email": "eve@other.iam.gserviceaccount.com"}, "claim_rule"),
        (GOOGLE | {"email_verified": False}, "email_not_verified"),
        (PERSON | {"email_verified": False}, "email_not_verified"),
        ({name: value for name, value in GITLAB.items() if name != "namespace_path"}, "expression_failed"),
        (
            {name: value for name, value in PERSON.items() if name != "groups"} | {"_claim_names": {"groups": "src1"}},
            "groups_overage",
        ),
    ],
)
def test_a_workload_of_somebody_else_is_refused(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        MAPPERS[claims["iss"]].map(claims)
    assert refusal.value.why == why


def test_the_example_of_a_subject_is_one() -> None:
    (example,) = re.findall(r"`subjects: \[(.*)\]`", SECTION)
    subject = Subject.model_validate(YAML(typ="safe", pure=True).load(example))
    user = MAPPERS[GITLAB["iss"]].map(GITLAB)
    assert compile_subjects([subject])(Identity(GITLAB["iss"], user.username, user.groups, claims=GITLAB))

"""The policies in policies/: each passes its cases alone, and the four together tell the story they are made for."""

from __future__ import annotations

from pathlib import Path

import pytest
import re2

from holdfast.exchange import Decision, Identity
from holdfast.kube.canonical import canonicalize
from holdfast.kube.request_info import parse_request_info
from holdfast.masking.plan import Plan, compile_plan
from holdfast.policy.authorizer import load_policies
from holdfast.policy.cases import CasesFile, run_cases
from holdfast.policy.rules import read_policy
from holdfast.settings.section import parse_model, read_yaml

FOLDER = Path(__file__).parents[2] / "policies"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if not file.name.endswith(".cases.yaml"))
TOGETHER = load_policies(FILES)


def test_there_are_four() -> None:
    names = [file.stem for file in FILES]
    assert names == ["agents", "dangerous-held", "escalation-denied", "secrets-masked"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_policy_passes_its_cases(file: Path) -> None:
    results = run_cases(load_policies([file]), file.with_suffix(".cases.yaml"))
    assert [result for result in results if not result.passed] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_rule_and_mask_that_is_shipped_has_a_case(file: Path) -> None:
    policy, cases_file = read_policy(file), file.with_suffix(".cases.yaml")
    cases = parse_model(CasesFile, read_yaml(cases_file), cases_file).cases
    tried = {case.rule for case in cases} | {mask for case in cases for mask in case.masks or ()}
    assert {rule.name for rule in policy.rules} | {mask.name for mask in policy.masks} <= tried


def decide(group: str, request: str) -> Decision:
    method, _, target = request.partition(" ")
    identity = Identity("https://issuer.example", "somebody", (group,) if group else ())
    return TOGETHER.authorize(identity, parse_request_info(method, canonicalize(target.encode())))


STORY = [
    ("agents", "GET /api/v1/namespaces/prod/pods?watch=true", "ALLOW", "agents-read"),
    ("agents", "GET /api/v1/namespaces/demo/pods/web/log", "ALLOW", "agents-read"),
    ("agents", "GET /api/v1/namespaces/demo/pods/web/exec?command=id", "ALLOW", "agents-run-commands-in-demo"),
    ("agents", "GET /api/v1/namespaces/prod/pods/web/exec?command=id", "HOLD", "hold-commands-in-production"),
    ("agents", "GET /api/v1/namespaces/demo/secrets/database", "ALLOW", "agents-read-masked-secrets"),
    ("agents", "POST /apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "DENY", "deny-rbac-writes"),
    ("agents", "DELETE /api/v1/namespaces/demo-1", "HOLD", "hold-namespace-deletion"),
    ("agents", "DELETE /api/v1/namespaces/demo/pods", "HOLD", "hold-mass-deletion"),
    ("agents", "DELETE /apis/rbac.authorization.k8s.io/v1/clusterroles", "DENY", "deny-rbac-writes"),
    ("agents", "DELETE /api/v1/secrets", "DENY", "deny-system-secret-writes"),
    ("agents", "DELETE /api/v1/namespaces/demo/secrets", "HOLD", "hold-mass-deletion"),
    ("agents", "POST /api/v1/namespaces/demo/serviceaccounts/default/token", "DENY", "deny-token-minting"),
    ("agents", "GET /api/v1/nodes/n/proxy/pods", "DENY", "deny-proxies"),
    ("agents", "POST /api/v1/namespaces/prod/pods", "DENY", ""),
    ("platform", "POST /api/v1/namespaces", "ALLOW", "platform-everything-else"),
    ("platform", "DELETE /api/v1/namespaces/demo-1", "HOLD", "hold-namespace-deletion"),
    ("platform", "GET /api", "ALLOW", "platform-every-url"),
    ("", "GET /api/v1/pods", "DENY", ""),
    ("", "GET /version", "DENY", ""),
    ("", "DELETE /api/v1/namespaces/demo-1", "HOLD", "hold-namespace-deletion"),
]


@pytest.mark.parametrize(("group", "request_line", "effect", "rule"), STORY)
def test_the_four_together(group: str, request_line: str, effect: str, rule: str) -> None:
    decision = decide(group, request_line)
    assert (decision.effect.name, decision.rule) == (effect, rule)


def test_every_denial_says_how_to_go_on() -> None:
    assert [rule.name for rule in TOGETHER.rules if rule.effect.name == "DENY" and len(rule.reason) < 40] == []


@pytest.mark.parametrize("group", ["agents", "platform", ""])
def test_nobody_gets_a_secret_unmasked(group: str) -> None:
    for request in ("GET /api/v1/secrets", "GET /api/v1/namespaces/x/secrets/a", "GET /api/v1/watch/secrets"):
        assert [mask.name for mask in decide(group, request).masks] == ["secret-values"]


LOGGED_SECRETS = [
    "Authorization: Bearer abcdefghijklmnopqrstuvwxyz012345",
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZ2VudC0xIn0.c2lnbmF0dXJl",
    "key AKIAIOSFODNN7EXAMPLE in use",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0123456789012_abcdef",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----",
    "MHcCAQEEIIfQMHcCAQEEIIfQMHcCAQEEIIfQMHcCAQEEIIfQMHcCAQEEIIfQ0123",
    "2026-01-01T00:00:00Z MHcCAQEEIIfQMHcCAQEEIIfQMHcCAQEEIIfQMHcCAQEEIIfQMHcCAQEEIIfQ0123",
    "password=hunter2",
    'DB_PASSWORD: "two words"',
    '{"msg": "{\\"password\\": \\"hunter2\\"}"}',
]
LOGGED_TALK = [
    "GET /healthz 200",
    "the bearer of this message",
    "password must not be empty",
    "-----BEGIN CERTIFICATE-----",
    "eyJhbGciOiJSUzI1NiJ9",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
]


LOG_PATTERNS = [re2.compile(f"(?m){p}") for compiled in TOGETHER.masks for p in compiled.mask.patterns]


@pytest.mark.parametrize("line", LOGGED_SECRETS)
def test_a_secret_in_a_log_is_found(line: str) -> None:
    assert any(pattern.search(line) for pattern in LOG_PATTERNS)


@pytest.mark.parametrize("line", LOGGED_TALK)
def test_ordinary_log_lines_are_left_alone(line: str) -> None:
    assert not any(pattern.search(line) for pattern in LOG_PATTERNS)


def test_a_private_key_logged_as_one_string_is_found_whole() -> None:
    key = r"-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\nIIfQ==\n-----"
    found = {match.group() for pattern in LOG_PATTERNS if (match := pattern.search(f'{{"key": "{key}END EC"}}'))}
    assert found == {key.removesuffix("-----")}


def test_the_masks_compile() -> None:
    for compiled in TOGETHER.masks:
        assert compile_plan((compiled.mask,)) != Plan()

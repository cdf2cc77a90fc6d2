"""Cases say what differs, and a bad file of cases is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.errors import ConfigurationError
from holdfast.policy.authorizer import Policy, load_policies
from holdfast.policy.cases import run_cases

if TYPE_CHECKING:
    from pathlib import Path

POLICY = """\
apiVersion: holdfast.dev/v1
kind: Policy
metadata: {name: test}
rules:
- name: read
  effect: allow
  subjects: [{groups: [agents], issuers: ["https://a.example"]}]
  verbs: [get]
  apiGroups: [""]
  resources: [pods]
masks:
- {name: pods, apiGroups: [""], resources: [pods], fields: ["$.data"]}
"""
CASE = "name: one, user: u, groups: [agents], issuer: 'https://a.example', request: GET /api/v1/namespaces/x/pods/a"
HEAD = "apiVersion: holdfast.dev/v1\nkind: PolicyCases\ncases:\n"


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY, encoding="utf-8")
    return load_policies([file])


def cases(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "policy.cases.yaml"
    file.write_text(HEAD + "".join(f"- {{{line}}}\n" for line in lines), encoding="utf-8")
    return file


OUTCOMES = [
    ("expect: allow", ""),
    ("expect: allow, rule: read, masks: [pods]", ""),
    ("expect: deny", "expected deny, found allow by read"),
    ("expect: allow, rule: write", "expected write to decide, found read"),
    ("expect: allow, rule: ''", "expected no rule to decide, found read"),
    ("expect: allow, masks: []", "expected masks [], found ['pods']"),
    ("expect: hold, rule: x", "expected hold, found allow by read; expected x to decide, found read"),
]


@pytest.mark.parametrize(("expectation", "failure"), OUTCOMES)
def test_a_case_says_what_differs(tmp_path: Path, policy: Policy, expectation: str, failure: str) -> None:
    (result,) = run_cases(policy, cases(tmp_path, f"{CASE}, {expectation}"))
    assert (result.name, result.failure, result.passed) == ("one", failure, not failure)


def test_a_caller_without_groups_and_issuer_has_none(tmp_path: Path, policy: Policy) -> None:
    line = "name: one, user: u, request: GET /api/v1/namespaces/x/pods/a, expect: deny, rule: ''"
    (result,) = run_cases(policy, cases(tmp_path, line))
    assert result.passed


def test_a_request_with_two_readings_fails_its_case(tmp_path: Path, policy: Policy) -> None:
    (result,) = run_cases(policy, cases(tmp_path, "name: one, user: u, request: GET /api/../x, expect: deny"))
    assert result.failure.startswith("the request never gets to policy: ")


FAULTS = [
    ("name: one, user: u, request: /api, expect: deny", "cases.0.request: found '/api'; expected: "),
    ("name: one, user: u, request: GET /api, expect: no", "cases.0.expect: found 'no'; expected: "),
    ("name: one, user: u, request: GET /api, expect: deny, mask: a", "cases.0.mask: there is no such key"),
    ("name: one, request: GET /api, expect: deny", "cases.0.user: is missing."),
]


@pytest.mark.parametrize(("line", "sentence"), FAULTS)
def test_a_bad_case_is_refused(tmp_path: Path, policy: Policy, line: str, sentence: str) -> None:
    file = cases(tmp_path, line)
    with pytest.raises(ConfigurationError) as caught:
        run_cases(policy, file)
    assert str(caught.value).startswith(f"{file}: {sentence}")

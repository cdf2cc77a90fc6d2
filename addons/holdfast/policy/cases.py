"""Cases: requests with the decisions they must get, in `NAME.cases.yaml` beside the policy file `NAME.yaml`.

They are judged by that one file alone, so that they keep their meaning in whatever composition it is used.

    apiVersion: holdfast.dev/v1
    kind: PolicyCases
    cases:
    - name: an agent reads pods
      user: agent-1
      groups: [agents]                # none when absent
      issuer: https://issuer.example  # empty when absent
      claims: {repository: org/app}   # none when absent
      request: GET /api/v1/namespaces/web/pods
      expect: allow                   # allow | deny | hold
      rule: read-pods                 # optional: the rule that decides; "" when no rule does
      masks: [log-secrets]            # optional: exactly these masks apply, in any order
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from holdfast.errors import BadRequest
from holdfast.exchange import Identity
from holdfast.kube.canonical import canonicalize
from holdfast.kube.request_info import parse_request_info
from holdfast.policy.rules import Entries, PolicySection
from holdfast.settings.section import matching, parse_model, read_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.exchange import Decision
    from holdfast.policy.authorizer import Policy


class Case(PolicySection):
    """One request and what must be decided on it."""

    name: str
    user: str
    groups: tuple[str, ...] = ()
    issuer: str = ""
    claims: dict[str, Any] = Field(default_factory=dict)
    request: Annotated[str, matching(r"[A-Z]+ /[!-~]*", "a method and a URI, as GET /api/v1/pods")]
    expect: Literal["allow", "deny", "hold"]
    rule: str | None = None
    masks: tuple[str, ...] | None = None


class CasesFile(PolicySection):
    """One file of cases."""

    api_version: Literal["holdfast.dev/v1"]
    kind: Literal["PolicyCases"]
    cases: Entries[Case]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case came out. `failure` says what differed; it is empty when the case passed."""

    name: str
    failure: str = ""

    @property
    def passed(self) -> bool:
        return not self.failure


def run_cases(policy: Policy, file: Path) -> list[CaseResult]:
    """Judge every case in `file` by `policy`; raise ConfigurationError when the file is not as it must be."""
    cases = parse_model(CasesFile, read_yaml(file), file).cases
    return [CaseResult(case.name, _judge(policy, case)) for case in cases]


def _judge(policy: Policy, case: Case) -> str:
    method, _, target = case.request.partition(" ")
    identity = Identity(issuer=case.issuer, username=case.user, groups=case.groups, claims=case.claims)
    try:
        info = parse_request_info(method, canonicalize(target.encode("ascii")))
    except BadRequest as error:
        return f"the request never gets to policy: {error}"
    return "; ".join(_differences(case, policy.authorize(identity, info)))


def _differences(case: Case, decision: Decision) -> list[str]:
    found = decision.effect.name.lower()
    differences = []
    if found != case.expect:
        differences.append(f"expected {case.expect}, found {found} by {decision.rule or 'no rule'}")
    if case.rule is not None and decision.rule != case.rule:
        differences.append(f"expected {case.rule or 'no rule'} to decide, found {decision.rule or 'no rule'}")
    if case.masks is not None and set(case.masks) != (masks := {mask.name for mask in decision.masks}):
        differences.append(f"expected masks {sorted(case.masks)}, found {sorted(masks)}")
    return differences

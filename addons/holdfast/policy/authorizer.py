"""Composition: many rules, one decision.

**Any deny wins, else any hold, else an allow; nothing matches: denied.** Several files are one policy: their
rules and masks are put together in the order of the files, and names are unique over all of them.

- Among the matching rules of the winning effect the first in file order names the decision, and gives its
  reason; of several holds that is also the one whose approvers and wait apply. Write the stricter hold first.
- A hold needs no allow beside it: a person's approval is the permission.
- Masks are the union over all masks that match, whatever the effect and whoever asks: a refused request is
  recorded too.

The hash names the content: SHA-256 over the files' values in order, written as JSON with sorted keys. Comments,
layout and file names do not change it; anything a decision depends on does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import ConfigurationError
from holdfast.exchange import Approvers, Decision, Effect, Mask
from holdfast.policy.matching import RequestTest, SubjectTest, compile_mask, compile_rule, compile_subjects
from holdfast.policy.rules import read_policy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from holdfast.exchange import Identity, RequestInfo
    from holdfast.policy.rules import MaskRule, PolicyFile, Rule

NO_RULE = "no rule allows it"


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule, ready to be asked. `wait_seconds` is 0 and `approvers` empty unless the effect is hold."""

    name: str
    effect: Effect
    reason: str
    approvers: Approvers
    wait_seconds: float
    matches_request: RequestTest
    matches_subject: SubjectTest


@dataclass(frozen=True, slots=True)
class CompiledMask:
    """One mask, and the test whether it applies to a request."""

    mask: Mask
    matches_request: RequestTest


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules in force. `rules` stand in order of effect (deny, hold, allow), then of the files."""

    hash: str
    rules: tuple[CompiledRule, ...] = ()
    masks: tuple[CompiledMask, ...] = ()

    def authorize(self, identity: Identity, info: RequestInfo) -> Decision:
        """Return the decision on one request. It always has the policy's hash and every mask that applies."""
        masks = tuple(mask.mask for mask in self.masks if mask.matches_request(info))
        for rule in self.rules:
            if rule.matches_request(info) and rule.matches_subject(identity):
                return Decision(
                    rule.effect, rule.name, rule.reason, self.hash, masks, rule.approvers, rule.wait_seconds
                )
        return Decision(reason=NO_RULE, policy_hash=self.hash, masks=masks)


def load_policies(files: Sequence[Path]) -> Policy:
    """Read, check and compile policy files into one policy.

    Raises ConfigurationError with file, field, value and what was expected; nothing is taken from a set of
    files in which one is bad. No files make a policy that denies everything.
    """
    documents = [read_policy(file) for file in files]
    _require_unique_names(files, documents)
    return compose(documents)


def compose(documents: Sequence[PolicyFile]) -> Policy:
    """Compile checked files, whose names are unique, into one policy."""
    rules = (_compile_rule(rule) for document in documents for rule in document.rules)
    masks = (_compile_mask(mask) for document in documents for mask in document.masks)
    in_order = sorted(rules, key=lambda rule: rule.effect)
    return Policy(hash_content(documents), tuple(in_order), tuple(masks))


def hash_content(documents: Iterable[PolicyFile]) -> str:
    """SHA-256, in hex, over what the files say."""
    content = [document.model_dump(mode="json", by_alias=True, exclude_unset=True) for document in documents]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _compile_rule(rule: Rule) -> CompiledRule:
    approvers = Approvers(rule.approvers.users, rule.approvers.groups) if rule.approvers else Approvers()
    return CompiledRule(
        name=rule.name,
        effect=Effect[rule.effect.upper()],
        reason=rule.reason,
        approvers=approvers,
        wait_seconds=rule.wait if rule.effect == "hold" else 0.0,
        matches_request=compile_rule(rule),
        matches_subject=compile_subjects(rule.subjects),
    )


def _compile_mask(mask: MaskRule) -> CompiledMask:
    plain = Mask(mask.name, mask.fields, mask.base64_fields, mask.patterns)
    return CompiledMask(plain, compile_mask(mask))


def _require_unique_names(files: Sequence[Path], documents: Sequence[PolicyFile]) -> None:
    pairs = list(zip(files, documents, strict=True))
    _require_unique((file, f"rules.{i}.name", rule.name) for file, doc in pairs for i, rule in enumerate(doc.rules))
    _require_unique((file, f"masks.{i}.name", mask.name) for file, doc in pairs for i, mask in enumerate(doc.masks))


def _require_unique(names: Iterable[tuple[Path, str, str]]) -> None:
    seen: dict[str, Path] = {}
    for file, field, name in names:
        if name in seen:
            raise ConfigurationError(
                f"{file}: {field}: found {name!r}; expected: a name that is not taken (it is in {seen[name]})."
            )
        seen[name] = file

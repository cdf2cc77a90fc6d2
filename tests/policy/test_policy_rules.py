"""Every fault of a policy file is one sentence: file, field, value, what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.errors import ConfigurationError
from holdfast.policy.authorizer import load_policies
from holdfast.policy.rules import read_policy

if TYPE_CHECKING:
    from pathlib import Path

HEAD = "apiVersion: holdfast.dev/v1\nkind: Policy\nmetadata: {name: test}\n"
RULE: dict[str, str | None] = {
    "name": "r",
    "effect": "allow",
    "subjects": "[{groups: [agents]}]",
    "verbs": "[get]",
    "apiGroups": '[""]',
    "resources": "[pods]",
}
MASK: dict[str, str | None] = {"name": "m", "apiGroups": '[""]', "resources": "[secrets]", "fields": '["$.data"]'}


def rule(**changes: str | None) -> str:
    """A file with one rule: RULE with some keys changed, or left out (None)."""
    return HEAD + "rules:\n" + _entry(RULE | changes)


def mask(**changes: str | None) -> str:
    """A file with one mask: MASK with some keys changed, or left out (None)."""
    return HEAD + "masks:\n" + _entry(MASK | changes)


def _entry(values: dict[str, str | None]) -> str:
    lines = [f"{key}: {value}" for key, value in values.items() if value is not None]
    return "- " + "\n  ".join(lines) + "\n"


def fault(tmp_path: Path, text: str) -> str:
    """What loading a file called policy.yaml says, without the folder."""
    file = tmp_path / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_policies([file])
    return str(caught.value).replace(f"{tmp_path}/", "")


VERBS = "one of *, create, delete, deletecollection, get, head, list, options, patch, post, put, update, watch"
FOR_TEXT = "expected: patterns only for text, such as pods/log; use fields for what is in objects"
ENTRIES = "a list with at least one entry; leave the key out to mean no list"

FIELD_FAULTS = {
    "unknown verb": (rule(verbs="[get, lst]"), f"rules.0.verbs.1: found 'lst'; expected: {VERBS}."),
    "verb no request carries": (rule(verbs="[escalate]"), f"rules.0.verbs.0: found 'escalate'; expected: {VERBS}."),
    "upper-case verb": (rule(verbs="[GET]"), f"rules.0.verbs.0: found 'GET'; expected: {VERBS}."),
    "verb glob": (rule(verbs='["get*"]'), f"rules.0.verbs.0: found 'get*'; expected: {VERBS}."),
    "no verbs": (rule(verbs=None), "rules.0.verbs: is missing."),
    "empty verbs": (rule(verbs="[]"), f"rules.0.verbs: found []; expected: {ENTRIES}."),
    "verb not in a list": (rule(verbs="get"), f"rules.0.verbs: found 'get'; expected: {ENTRIES}."),
    "unknown key": (
        rule(resourcenames="[a]"),
        "rules.0.resourcenames: there is no such key; check its spelling.",
    ),
    "snake case": (
        rule(resource_names="[a]"),
        "rules.0.resource_names: there is no such key; check its spelling.",
    ),
    "empty resourceNames": (rule(resourceNames="[]"), f"rules.0.resourceNames: found []; expected: {ENTRIES}."),
    "resourceNames without a value": (
        rule(resourceNames=""),
        f"rules.0.resourceNames: found None; expected: {ENTRIES}.",
    ),
    "empty resource name": (
        rule(resourceNames='[""]'),
        "rules.0.resourceNames.0: found ''; expected: text that is not empty.",
    ),
    "empty namespaces": (rule(namespaces="[]"), f"rules.0.namespaces: found []; expected: {ENTRIES}."),
    "null namespaces": (rule(namespaces="null"), f"rules.0.namespaces: found None; expected: {ENTRIES}."),
    "namespace that cannot be": (
        rule(namespaces='["dev/web"]'),
        "rules.0.namespaces.0: found 'dev/web'; expected: a namespace name, in which * and ? may stand.",
    ),
    "empty namespace": (
        rule(namespaces='[""]'),
        "rules.0.namespaces.0: found ''; expected: a namespace name, in which * and ? may stand.",
    ),
    "number as namespace": (
        rule(namespaces="[1]"),
        "rules.0.namespaces.0: found 1; expected: text; where YAML takes it for something else, in quotes.",
    ),
    "group with a version": (
        rule(apiGroups="[apps/v1]"),
        "rules.0.apiGroups.0: found 'apps/v1'; "
        'expected: an API group in lower case, without its version; "" is the core group.',
    ),
    "upper-case resource": (
        rule(resources="[Secrets]"),
        "rules.0.resources.0: found 'Secrets'; expected: a resource or resource/subresource, in lower case.",
    ),
    "resource with an empty subresource": (
        rule(resources="[pods/]"),
        "rules.0.resources.0: found 'pods/'; expected: a resource or resource/subresource, in lower case.",
    ),
    "resource with two slashes": (
        rule(resources="[pods/proxy/x]"),
        "rules.0.resources.0: found 'pods/proxy/x'; expected: a resource or resource/subresource, in lower case.",
    ),
    "no subjects": (rule(subjects=None), "rules.0.subjects: is missing."),
    "empty subjects": (rule(subjects="[]"), f"rules.0.subjects: found []; expected: {ENTRIES}."),
    "subject of nobody": (
        rule(subjects="[{}]"),
        "rules.0.subjects.0: found {}; expected: at least one of users, groups, issuers.",
    ),
    "claims without their issuer": (
        rule(subjects="[{users: [a], claims: {repository: [b]}}]"),
        "rules.0.subjects.0: found {'users': ['a'], 'claims': {'repository': ['b']}}; expected: issuers beside claims: "
        "what a claim means is its issuer's word.",
    ),
    "claims with an empty list": (
        rule(subjects="[{issuers: [a], claims: {repository: []}}]"),
        f"rules.0.subjects.0.claims.repository: found []; expected: {ENTRIES}.",
    ),
    "subject with an empty list": (
        rule(subjects="[{groups: [a], users: []}]"),
        f"rules.0.subjects.0.users: found []; expected: {ENTRIES}.",
    ),
    "bad rule name": (
        rule(name="Read_Pods"),
        "rules.0.name: found 'Read_Pods'; expected: at most 63 small letters, digits and hyphens, of which a letter or "
        "digit comes first.",
    ),
    "unknown effect": (
        rule(effect="audit"),
        "rules.0.effect: found 'audit'; expected: 'allow', 'deny' or 'hold'.",
    ),
    "no effect": (rule(effect=None), "rules.0.effect: is missing."),
    "wait too long": (
        rule(effect="hold", approvers="{groups: [p]}", wait="25h"),
        "rules.0.wait: found '25h'; expected: a duration from 1s to 24h, as 30s, 5m or 1h30m.",
    ),
    "wait of nothing": (
        rule(effect="hold", approvers="{groups: [p]}", wait="0s"),
        "rules.0.wait: found '0s'; expected: a duration from 1s to 24h, as 30s, 5m or 1h30m.",
    ),
    "wait without a unit": (
        rule(effect="hold", approvers="{groups: [p]}", wait="300"),
        "rules.0.wait: found 300; expected: a duration from 1s to 24h, as 30s, 5m or 1h30m.",
    ),
    "empty wait": (
        rule(effect="hold", approvers="{groups: [p]}", wait='""'),
        "rules.0.wait: found ''; expected: a duration from 1s to 24h, as 30s, 5m or 1h30m.",
    ),
    "approvers of nobody": (
        rule(effect="hold", approvers="{}"),
        "rules.0.approvers: found {}; expected: at least one of users, groups.",
    ),
    "empty approvers": (
        rule(effect="hold", approvers="{groups: []}"),
        f"rules.0.approvers.groups: found []; expected: {ENTRIES}.",
    ),
    "approver glob": (
        rule(effect="hold", approvers='{groups: ["*"]}'),
        "rules.0.approvers.groups.0: found '*'; expected: an exact name, because approvers are not globs.",
    ),
    "URL with a star inside": (
        rule(apiGroups=None, resources=None, nonResourceURLs='["/api/*/x"]'),
        "rules.0.nonResourceURLs.0: found '/api/*/x'; expected: a path that begins with / and has no query, "
        "in which only the last character may be *.",
    ),
    "URL without a slash": (
        rule(apiGroups=None, resources=None, nonResourceURLs="[healthz]"),
        "rules.0.nonResourceURLs.0: found 'healthz'; expected: a path that begins with / and has no query, "
        "in which only the last character may be *.",
    ),
    "no masked field": (
        mask(fields=None),
        "masks.0: found {'name': 'm', 'apiGroups': [''], 'resources': ['secrets']}; "
        "expected: at least one of fields, base64Fields, patterns.",
    ),
    "empty masked fields": (mask(fields="[]"), f"masks.0.fields: found []; expected: {ENTRIES}."),
    "mask with subjects": (
        mask(subjects="[{users: [a]}]"),
        "masks.0.subjects: there is no such key; check its spelling.",
    ),
    "mask without resources": (mask(resources=None), "masks.0.resources: is missing."),
    "path that does not parse": (
        mask(fields='["$.data["]'),
        "masks.0.fields.0: found '$.data['; expected: a JSONPath (Parse error near the end of string).",
    ),
    "path not from the root": (
        mask(base64Fields="[data]"),
        "masks.0.base64Fields.0: found 'data'; expected: a JSONPath from the object's root, as $.data.*.",
    ),
    "patterns over objects": (
        mask(fields=None, patterns="[x]"),
        f"masks.0: found {{'name': 'm', 'apiGroups': [''], 'resources': ['secrets'], 'patterns': ['x']}}; {FOR_TEXT}.",
    ),
    "patterns over text and objects": (
        mask(fields=None, resources="[pods/log, pods]", patterns="[x]"),
        "masks.0: found {'name': 'm', 'apiGroups': [''], 'resources': ['pods/log', 'pods'], 'patterns...; "
        f"{FOR_TEXT}.",
    ),
    "patterns over every subresource": (
        mask(fields=None, resources='["pods/*"]', patterns="[x]"),
        f"masks.0: found {{'name': 'm', 'apiGroups': [''], 'resources': ['pods/*'], 'patterns': ['x']}}; {FOR_TEXT}.",
    ),
    "patterns over everything": (
        mask(fields=None, resources='["*"]', patterns="[x]"),
        f"masks.0: found {{'name': 'm', 'apiGroups': [''], 'resources': ['*'], 'patterns': ['x']}}; {FOR_TEXT}.",
    ),
    "pattern outside RE2": (
        mask(patterns='["(?=a)"]'),
        "masks.0.patterns.0: found '(?=a)'; expected: a regular expression in RE2 syntax.",
    ),
    "pattern that matches everywhere": (
        mask(patterns='["x*"]'),
        "masks.0.patterns.0: found 'x*'; expected: a regular expression that does not match empty text.",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), FIELD_FAULTS.values(), ids=FIELD_FAULTS)
def test_a_bad_field_is_refused_with_field_value_and_expectation(tmp_path: Path, text: str, sentence: str) -> None:
    assert fault(tmp_path, text) == f"policy.yaml: {sentence}"


RULE_FAULTS = {
    "resources and URLs": (
        rule(nonResourceURLs="[/api]"),
        "nonResourceURLs, or resources with what belongs to them, not both.",
    ),
    "namespaces and URLs": (
        rule(apiGroups=None, resources=None, namespaces="[a]", nonResourceURLs="[/api]"),
        "nonResourceURLs, or resources with what belongs to them, not both.",
    ),
    "neither": (rule(apiGroups=None, resources=None), "resources with apiGroups, or nonResourceURLs."),
    "resources without groups": (rule(apiGroups=None), "resources with apiGroups, or nonResourceURLs."),
    "groups without resources": (rule(resources=None), "resources with apiGroups, or nonResourceURLs."),
    "URL verb on resources": (
        rule(verbs="[get, post]"),
        "verbs of resources, which are create, delete, deletecollection, get, list, patch, update, watch, not post.",
    ),
    "resource verb on URLs": (
        rule(verbs="[list]", apiGroups=None, resources=None, nonResourceURLs="[/api]"),
        "verbs of nonResourceURLs, which are delete, get, head, options, patch, post, put, not list.",
    ),
    "hold without approvers": (rule(effect="hold"), "approvers, because the effect is hold."),
    "hold with null approvers": (rule(effect="hold", approvers=""), "approvers, because the effect is hold."),
    "approvers on allow": (
        rule(approvers="{groups: [p]}"),
        "no approvers and no wait, because the effect is allow.",
    ),
    "wait on deny": (rule(effect="deny", wait="5m"), "no approvers and no wait, because the effect is deny."),
    "held discovery": (
        rule(effect="hold", approvers="{users: [p]}", apiGroups=None, resources=None, nonResourceURLs="[/api]"),
        "allow or deny for nonResourceURLs, because clients do not wait for discovery.",
    ),
}


@pytest.mark.parametrize(("text", "expected"), RULE_FAULTS.values(), ids=RULE_FAULTS)
def test_keys_that_do_not_go_together_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    sentence = fault(tmp_path, text)
    assert sentence.startswith("policy.yaml: rules.0: found {'name': 'r', ")
    assert sentence.endswith(f"; expected: {expected}")


FILE_FAULTS = {
    "not a mapping": ("- a\n", "policy.yaml: expected a mapping of settings, found ['a']."),
    "empty": ("", "policy.yaml: expected a mapping of settings, found None."),
    "wrong kind": (
        rule().replace("Policy", "PolicyCases"),
        "policy.yaml: kind: found 'PolicyCases'; expected: 'Policy'.",
    ),
    "wrong version": (
        rule().replace("dev/v1", "dev/v2"),
        "policy.yaml: apiVersion: found 'holdfast.dev/v2'; expected: 'holdfast.dev/v1'.",
    ),
    "no name": (rule().replace("{name: test}", "{}"), "policy.yaml: metadata.name: is missing."),
    "neither rules nor masks": (
        HEAD,
        "policy.yaml: the file: found {'apiVersion': 'holdfast.dev/v1', 'kind': 'Policy', "
        "'metadata': {'name': 'tes...; expected: at least one of rules, masks.",
    ),
    "empty rules": (HEAD + "rules: []\n", f"policy.yaml: rules: found []; expected: {ENTRIES}."),
    "rules with no value": (HEAD + "rules:\n", f"policy.yaml: rules: found None; expected: {ENTRIES}."),
    "rule twice": (
        rule() + _entry(RULE),
        "policy.yaml: rules.1.name: found 'r'; expected: a name that is not taken (it is in policy.yaml).",
    ),
    "mask twice": (
        mask() + _entry(MASK),
        "policy.yaml: masks.1.name: found 'm'; expected: a name that is not taken (it is in policy.yaml).",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), FILE_FAULTS.values(), ids=FILE_FAULTS)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    assert fault(tmp_path, text) == sentence


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    sentence = fault(tmp_path, rule() + "  verbs: [list]\n")
    assert sentence.startswith("policy.yaml: is not valid YAML: found duplicate key")
    assert sentence.endswith("(line 11, column 3).")


def test_a_second_document_in_the_file_is_refused(tmp_path: Path) -> None:
    assert fault(tmp_path, rule() + "---\n" + rule()).startswith("policy.yaml: is not valid YAML: ")


def test_a_rule_name_is_unique_over_all_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(rule(), encoding="utf-8")
    second.write_text(rule(verbs="[list]"), encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_policies([first, second])
    assert str(caught.value) == (
        f"{second}: rules.0.name: found 'r'; expected: a name that is not taken (it is in {first})."
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.yaml: cannot be read: No such file or directory\.$"):
        load_policies([tmp_path / "absent.yaml"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h2m3s", 3723), ("24h", 86400), (None, 300)],
)
def test_a_wait_is_read_as_seconds(tmp_path: Path, text: str | None, seconds: int) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(rule(effect="hold", approvers="{groups: [p]}", wait=text), encoding="utf-8")
    assert read_policy(file).rules[0].wait == seconds


@pytest.mark.parametrize("resources", ["[pods/log]", '["*/log"]', '[pods/log, "*/log"]'])
def test_patterns_are_taken_for_text(tmp_path: Path, resources: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(mask(fields=None, resources=resources, patterns="[x]"), encoding="utf-8")
    assert load_policies([file]).masks[0].mask.patterns == ("x",)

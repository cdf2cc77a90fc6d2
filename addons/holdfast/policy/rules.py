"""What a policy file may say: the YAML shape, checked on load.

The words are RBAC's (k8s.io/api `rbac/v1/types.go`: verbs, apiGroups, resources, resourceNames,
nonResourceURLs), and namespaces, which audit policy has (`audit/v1/types.go`). A file that cannot be enforced
as written is refused: an unknown key, a verb no request carries, an empty list, a resource in upper case. For a
deny rule a silent misspelling is an open door, so nothing here is ignored.

    apiVersion: holdfast.dev/v1
    kind: Policy
    metadata: {name: agents}
    rules:
    - name: read-pods                  # lower case letters, digits, `-`; unique over all files
      effect: allow                    # allow | deny | hold
      subjects:                        # any of these; within one, each list given must match
      - groups: [agents]               # users, groups, issuers: globs
      verbs: [get, list, watch]        # or "*"
      apiGroups: ["", apps]            # globs; "" is the core group
      resources: [pods, pods/log]      # RBAC's spelling: "*" is everything, "pods/*" every subresource of pods,
                                       # "*/scale" every scale; "pods" has no subresources in it
      namespaces: ["dev-*"]            # optional, globs
      resourceNames: ["web-*"]         # optional, globs
      reason: what the caller is told
    - name: delete-namespace
      effect: hold
      subjects: [{users: ["*"]}]
      verbs: [delete]
      apiGroups: [""]
      resources: [namespaces]
      approvers: {groups: [platform]}  # hold only, required: exact names, no globs
      wait: 5m                         # hold only: 1s to 24h, 5m when absent
    - name: discover
      effect: allow
      subjects: [{groups: [agents]}]
      verbs: [get]
      nonResourceURLs: [/api, "/api/*"]  # instead of resources: exact, or ending in *
    masks:
    - name: secret-values              # for everybody, whatever the effect
      apiGroups: [""]
      resources: [secrets]
      base64Fields: ["$.data.*"]       # fields, base64Fields: JSONPath from the object's root
    - name: passwords-in-logs
      apiGroups: [""]
      resources: [pods/log]            # with patterns every resource must be text: pods/log, "*/log"
      patterns: ["password=[^ ]+"]     # RE2

In globs `*` is any run of characters, `?` one character, all else (`[` too) itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import re2
from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.parser import parse as parse_jsonpath
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from holdfast.settings.section import Section, matching, parse_model, read_yaml

if TYPE_CHECKING:
    from pathlib import Path

API_VERSION = "holdfast.dev/v1"
DEFAULT_WAIT_SECONDS = 300

RESOURCE_VERBS = frozenset({"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"})
"""What a request for a resource can do. `escalate`, `bind` and `impersonate` are questions that the API server
asks itself inside a write, so no rule could answer them."""

URL_VERBS = frozenset({"delete", "get", "head", "options", "patch", "post", "put"})
"""HTTP methods, lower case: the verbs of nonResourceURLs."""

_WAIT_BOUNDS = range(1, 24 * 3600 + 1)
_DURATION = re.compile(r"(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,5})s)?")
_GROUP = re.compile(r"[a-z0-9.*?-]*")
_RESOURCE = re.compile(r"[a-z0-9.*?-]+(/[a-z0-9.*?-]+)?")
_NAMESPACE = re.compile(r"[a-z0-9*?-]+")
_URL = re.compile(r"\*|/[^*?]*\*?")


def _require_entries(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise ValueError("a list with at least one entry; leave the key out to mean no list")
    return value


def _require_verb(verb: str) -> str:
    known = RESOURCE_VERBS | URL_VERBS | {"*"}
    if verb not in known:
        raise ValueError(f"one of {', '.join(sorted(known))}")
    return verb


def _require_group(group: str) -> str:
    if _GROUP.fullmatch(group) is None:
        raise ValueError('an API group in lower case, without its version; "" is the core group')
    return group


def _require_resource(resource: str) -> str:
    if _RESOURCE.fullmatch(resource) is None:
        raise ValueError("a resource or resource/subresource, in lower case")
    return resource


def _require_namespace(namespace: str) -> str:
    if _NAMESPACE.fullmatch(namespace) is None:
        raise ValueError("a namespace name, in which * and ? may stand")
    return namespace


def _require_url(url: str) -> str:
    if _URL.fullmatch(url) is None:
        raise ValueError("a path that begins with / and has no query, in which only the last character may be *")
    return url


def _is_text(resource: str) -> bool:
    """Whether whatever `resource` matches is answered in text: a log is, all else is objects or unknown."""
    return resource.endswith("/log")


def _require_exact(name: str) -> str:
    if not name or "*" in name:
        raise ValueError("an exact name, because approvers are not globs")
    return name


def _require_jsonpath(path: str) -> str:
    try:
        parse_jsonpath(path)
    except JSONPathError as error:
        raise ValueError(f"a JSONPath ({str(error).splitlines()[0].rstrip('.!')})") from error
    if not path.startswith("$"):
        raise ValueError("a JSONPath from the object's root, as $.data.*")
    return path


def _require_re2(pattern: str) -> str:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError("a regular expression in RE2 syntax") from error
    if compiled.search("") is not None:
        raise ValueError("a regular expression that does not match empty text")
    return pattern


def _parse_wait(value: object) -> int:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if total not in _WAIT_BOUNDS:
        raise ValueError("a duration from 1s to 24h, as 30s, 5m or 1h30m")
    return total


type Entries[T] = Annotated[tuple[T, ...], BeforeValidator(_require_entries)]

Name = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9-]{0,62}",
        "at most 63 small letters, digits and hyphens, of which a letter or digit comes first",
    ),
]
Glob = Annotated[str, Field(min_length=1)]
Verb = Annotated[str, AfterValidator(_require_verb)]
Group = Annotated[str, AfterValidator(_require_group)]
Resource = Annotated[str, AfterValidator(_require_resource)]
Namespace = Annotated[str, AfterValidator(_require_namespace)]
URL = Annotated[str, AfterValidator(_require_url)]
ExactName = Annotated[str, AfterValidator(_require_exact)]
JSONPath = Annotated[str, AfterValidator(_require_jsonpath)]
Pattern = Annotated[str, AfterValidator(_require_re2)]
Wait = Annotated[int, BeforeValidator(_parse_wait)]


class PolicySection(Section):
    """A section of a policy file: each key has one spelling, the one written in the file."""

    model_config = ConfigDict(populate_by_name=False, validate_by_name=False)


class Subject(PolicySection):
    """Whom a rule is about: every list that is given must match (globs).

    `claims` has a list for each claim, by its dotted name; of a claim that is itself a list, one value must match.
    What a claim says is its issuer's word, so claims come with `issuers`.
    """

    users: Entries[Glob] = ()
    groups: Entries[Glob] = ()
    issuers: Entries[Glob] = ()
    claims: dict[str, Entries[Glob]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _someone(self) -> Subject:
        if not (self.users or self.groups or self.issuers):
            raise ValueError("at least one of users, groups, issuers")
        if self.claims and not self.issuers:
            raise ValueError("issuers beside claims: what a claim means is its issuer's word")
        return self


class RuleApprovers(PolicySection):
    """Who may decide what a rule holds: exact names."""

    users: Entries[ExactName] = ()
    groups: Entries[ExactName] = ()

    @model_validator(mode="after")
    def _someone(self) -> RuleApprovers:
        if not (self.users or self.groups):
            raise ValueError("at least one of users, groups")
        return self


class Rule(PolicySection):
    """One rule: whom, what, and the effect. Absent lists (`()`) set no bound."""

    name: Name
    effect: Literal["allow", "deny", "hold"]
    subjects: Entries[Subject]
    verbs: Entries[Verb]
    api_groups: Entries[Group] = ()
    resources: Entries[Resource] = ()
    resource_names: Entries[Glob] = ()
    namespaces: Entries[Namespace] = ()
    non_resource_urls: Entries[URL] = Field((), alias="nonResourceURLs")
    reason: str = ""
    approvers: RuleApprovers | None = None
    wait: Wait = DEFAULT_WAIT_SECONDS

    @model_validator(mode="after")
    def _one_kind_of_target(self) -> Rule:
        of_resources = self.resources or self.api_groups or self.resource_names or self.namespaces
        if self.non_resource_urls and of_resources:
            raise ValueError("nonResourceURLs, or resources with what belongs to them, not both")
        if not self.non_resource_urls and not (self.resources and self.api_groups):
            raise ValueError("resources with apiGroups, or nonResourceURLs")
        return self

    @model_validator(mode="after")
    def _verbs_of_that_kind(self) -> Rule:
        kind, verbs = ("nonResourceURLs", URL_VERBS) if self.non_resource_urls else ("resources", RESOURCE_VERBS)
        foreign = [verb for verb in self.verbs if verb != "*" and verb not in verbs]
        if foreign:
            raise ValueError(f"verbs of {kind}, which are {', '.join(sorted(verbs))}, not {foreign[0]}")
        return self

    @model_validator(mode="after")
    def _hold_has_approvers(self) -> Rule:
        if self.effect == "hold" and self.approvers is None:
            raise ValueError("approvers, because the effect is hold")
        if self.effect != "hold" and self.model_fields_set & {"approvers", "wait"}:
            raise ValueError(f"no approvers and no wait, because the effect is {self.effect}")
        return self

    @model_validator(mode="after")
    def _discovery_is_not_held(self) -> Rule:
        """Clients give discovery 32 seconds (client-go `discovery_client.go`), less than a person takes."""
        if self.effect == "hold" and self.non_resource_urls:
            raise ValueError("allow or deny for nonResourceURLs, because clients do not wait for discovery")
        return self


class MaskRule(PolicySection):
    """What must not be seen, in which resources, whoever asks."""

    name: Name
    api_groups: Entries[Group]
    resources: Entries[Resource]
    namespaces: Entries[Namespace] = ()
    fields: Entries[JSONPath] = ()
    base64_fields: Entries[JSONPath] = Field((), alias="base64Fields")
    patterns: Entries[Pattern] = ()

    @model_validator(mode="after")
    def _masks_something(self) -> MaskRule:
        if not (self.fields or self.base64_fields or self.patterns):
            raise ValueError("at least one of fields, base64Fields, patterns")
        return self

    @model_validator(mode="after")
    def _patterns_are_for_text(self) -> MaskRule:
        if self.patterns and not all(_is_text(resource) for resource in self.resources):
            raise ValueError("patterns only for text, such as pods/log; use fields for what is in objects")
        return self


class Metadata(PolicySection):
    """The policy's own name, for people."""

    name: Name


class PolicyFile(PolicySection):
    """One policy file."""

    api_version: Literal["holdfast.dev/v1"]
    kind: Literal["Policy"]
    metadata: Metadata
    rules: Entries[Rule] = ()
    masks: Entries[MaskRule] = ()

    @model_validator(mode="after")
    def _says_something(self) -> PolicyFile:
        if not (self.rules or self.masks):
            raise ValueError("at least one of rules, masks")
        return self


def read_policy(file: Path) -> PolicyFile:
    """Read and check one policy file; raise ConfigurationError with file, field, value and what was expected."""
    return parse_model(PolicyFile, read_yaml(file), file)

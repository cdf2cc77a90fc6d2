"""The options by which calls are chosen, alike for every command that takes them."""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from holdfast.cli.options import names_day, parse_since
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from holdfast.audit.store import Filters

SUGGESTED = 3


class Verdict(enum.StrEnum):
    """The words that `record.verdict` has."""

    ALLOWED = "allowed"
    DENIED = "denied"
    HELD = "held"
    APPROVED = "approved"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REFUSED = "refused"


User = Annotated[str, typer.Option(help="Only calls of this user.")]
Claims = Annotated[
    list[str] | None,
    typer.Option(
        "--claim",
        metavar="NAME=VALUE",
        help="Only calls of callers whose token has this claim; members of a list each count, those of an object have "
        "dotted names. Given several times, all must be there.",
    ),
]
Verb = Annotated[str, typer.Option(help="Only this verb: get, list, watch, create, delete, ...")]
Resource = Annotated[
    str, typer.Option(help="Only this resource: pods, pods/exec, 'pods/*' for any subresource, '*/scale'.")
]
APIGroup = Annotated[str | None, typer.Option(help="Only resources of this API group; '' is the core group.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Only calls in this namespace.")]
Name = Annotated[str, typer.Option(help="Only calls that name this object.")]
Since = Annotated[
    str,
    typer.Option(
        help="Only calls since then: 10m, 2h, 7d, 2026-01-31T12:00:00Z; today or yesterday, from midnight on in this "
        "machine's time zone."
    ),
]
Until = Annotated[str, typer.Option(help="Only calls before then; written as --since is.")]
VerdictWord = Annotated[Verdict | None, typer.Option("--verdict", help="Only this verdict.")]
Rule = Annotated[str, typer.Option(help="Only calls that this rule of the policy decided.")]
HoldID = Annotated[str, typer.Option("--hold", metavar="ID", help="Only the call that waited as this hold.")]


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Their values, as they were typed."""

    user: User = ""
    claim: Claims = None
    verb: Verb = ""
    resource: Resource = ""
    api_group: APIGroup = None
    namespace: Namespace = ""
    name: Name = ""
    verdict: VerdictWord = None
    rule: Rule = ""
    hold: HoldID = ""
    since: Since = ""
    until: Until = ""

    def filters(self) -> Filters:
        """Read them, as of now. Raises ConfigurationError."""
        from holdfast.audit.store import Filters

        now = datetime.now(UTC)
        return Filters(
            user=self.user,
            claims=tuple(map(_parse_claim, self.claim or ())),
            verb=self.verb,
            resource=self.resource,
            api_group=self.api_group,
            namespace=self.namespace,
            name=self.name,
            verdict=self.verdict.value if self.verdict else "",
            rule=self.rule,
            hold=self.hold,
            since=read_moment(self.since, now, "--since"),
            until=read_moment(self.until, now, "--until"),
        )


def takes_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options where it has the parameter `chosen`, as which it gets their values."""
    hints = get_type_hints(FilterOptions, include_extras=True)
    names = [field.name for field in fields(FilterOptions)]

    @wraps(command)
    def run(**values: Any) -> None:
        command(chosen=FilterOptions(**{name: values.pop(name) for name in names}), **values)

    def parameters() -> Iterator[inspect.Parameter]:
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name != "chosen":
                yield parameter
                continue
            for field in fields(FilterOptions):
                yield parameter.replace(name=field.name, default=field.default, annotation=hints[field.name])

    signature = inspect.Signature(list(parameters()))
    run.__signature__ = signature  # type: ignore[attr-defined]  # which is what typer reads
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def suggest_resources(asked: str, there: Collection[str]) -> list[str]:
    """What may be meant by the value of --resource that names none of the resources that are there: at most three.

    People write them in the singular, short, or misspelt: `pod`, `po/exec`, `secrtes`.
    """
    resource, slash, subresource = asked.partition("/")
    if resource in {"", "*"} or resource in there:
        return []
    written = resource.lower()
    longer = sorted((name for name in there if name.startswith(written)), key=len)
    meant = longer or get_close_matches(written, there)
    return [f"{name}{slash}{subresource}" for name in meant[:SUGGESTED]]


def read_moment(text: str, now: datetime, option: str) -> datetime | None:
    """Read the value of --since or --until, None where there is none; say which moment a day's name means.

    Raises ConfigurationError.
    """
    if not text:
        return None
    moment = parse_since(text, now, option)
    if names_day(text):
        typer.echo(f"{option} {text}: {moment.isoformat()} ({moment.tzname()})", err=True)
    return moment


def _parse_claim(text: str) -> tuple[str, str]:
    from holdfast.audit.callers import LONGEST_CLAIM

    name, found, value = text.partition("=")
    if not name or not found or max(len(name), len(value)) > LONGEST_CLAIM:
        raise ConfigurationError(
            f"--claim: found {text!r}; expected NAME=VALUE, as run_id=123, of at most {LONGEST_CLAIM} characters each."
        )
    return name, value

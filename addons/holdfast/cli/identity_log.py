"""`holdfast identity log`: who was given a token or refused one, shut out or let in again, as recorded."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.audit.filters import read_moment
from holdfast.cli.audit.reading import open_reading
from holdfast.cli.options import ConfigFile, OutputFormat, read_settings
from holdfast.cli.output import Output, print_table, print_value
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from holdfast.audit.record import Record
    from holdfast.audit.store.admissions import Admission, Place

COLUMNS = ("TIME", "KIND", "WHO", "ISSUER", "GRANT", "ID", "WHY", "BY")

MEMBERS = (
    "issuer", "user", "grant", "tokenID", "expiresAt", "code", "detail", "message",
    "revocationID", "scope", "value", "until", "reason", "by",
)  # fmt: skip

_PLACE = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)/([0-9]{1,9})/([0-9]{1,16})")


def list_log(
    since: Annotated[
        str, typer.Option(help="Only since then: 10m, 2h, 7d, today, yesterday, 2026-01-31T12:00:00Z.")
    ] = "",
    until: Annotated[str, typer.Option(help="Only before then; written as --since is.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
    page: Annotated[str, typer.Option(metavar="TOKEN", help="Go on where a list ended: the token it gave.")] = "",
    output: OutputFormat = Output.TABLE,
    config: ConfigFile = None,
) -> None:
    """List what is on record beside calls, the newest first: tokens of the gateway's own, and revocations.

    The kinds are: issued, a token was given at /token; refused, one was not, or a SAML login failed; revoked and
    lifted, by `identity revoke` and `identity restore`. In JSON and YAML, `next` is the token of the next page.

    \b
    Example:
      holdfast identity log --since 1h
      holdfast identity log --since yesterday --until today -o json
    """
    from holdfast.audit.store.admissions import list_admissions

    now = datetime.now(UTC)
    moments = {"since": read_moment(since, now, "--since"), "until": read_moment(until, now, "--until")}
    before = _parse_page(page) if page else None
    with open_reading(read_settings(config)) as database:
        found = list_admissions(database, limit=limit + 1, before=before, **moments)
    _print_all(found[:limit], _page_token(found[limit - 1]) if len(found) > limit else "", output)


def _page_token(admission: Admission) -> str:
    return "/".join(map(str, admission.place))


def _parse_page(token: str) -> Place:
    place = _PLACE.fullmatch(token)
    if place is None:
        raise ConfigurationError(f"--page: found {token!r}; expected the token that such a list gave as `next`.")
    return place[1], int(place[2]), int(place[3])


def _print_all(found: list[Admission], next_page: str, output: Output) -> None:
    told = [_tell(admission.record) for admission in found]
    if output is not Output.TABLE:
        print_value({"log": told, "next": next_page}, output)
        return
    print_table(COLUMNS, map(_cells, told))
    if next_page:
        typer.echo(f"there are more: --page {next_page}", err=True)


def _tell(record: Record) -> dict[str, Any]:
    """One record as JSON; a part that has nothing to say is empty, as in the record."""
    told = dict.fromkeys(MEMBERS, "")
    if record.identity is not None:
        told |= {"issuer": record.identity.issuer, "user": record.identity.username}
    kind = "refused"
    if record.issue is not None:
        expires = datetime.fromtimestamp(record.issue.expires_at, UTC)
        kind = "issued"
        told |= {"grant": record.issue.grant, "tokenID": record.issue.id, "expiresAt": f"{expires:%FT%TZ}"}
    if record.refusal is not None:
        told |= {"code": record.refusal.why, "detail": record.refusal.detail, "message": record.refusal.message}
    if record.revoke is not None:
        kind = "lifted" if record.revoke.lifted else "revoked"
        told |= {
            "issuer": record.revoke.issuer,
            "revocationID": record.revoke.id,
            "scope": record.revoke.scope,
            "value": record.revoke.value,
            "until": record.revoke.until,
            "reason": record.revoke.reason,
            "by": record.revoke.requested_by,
        }
    return {"at": record.at, "kind": kind, **told}


def _cells(told: dict[str, Any]) -> tuple[str, ...]:
    code = ": ".join(filter(None, (told["code"], told["detail"])))
    until = f" (until {told['until'][:19]}Z)" if told["until"] else ""
    why = f"{told['message']} [{code}]" if code else told["reason"] + until
    return (
        f"{told['at'][:19]}Z",
        told["kind"],
        told["user"] or f"{told['scope']} {told['value']}".strip(),
        told["issuer"],
        told["grant"],
        told["tokenID"] or told["revocationID"],
        why,
        told["by"],
    )

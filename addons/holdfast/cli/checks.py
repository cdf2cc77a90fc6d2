"""The doctor's checks, one function each: what was found and, unless all is well, what to do next.

None of them raises, changes anything, or shows a secret.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Literal

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from holdfast.audit.head import find_heads, find_lack
from holdfast.audit.keys import CONSOLE, ROLES, KeyFolder, advise_on_name
from holdfast.audit.objects import open_pieces
from holdfast.audit.store import AuditStore, LedgerStore
from holdfast.certificates import find_certificate_error
from holdfast.cli.approvals import default_server
from holdfast.cli.audit.reading import open_reading
from holdfast.cli.permissions import find_exposed
from holdfast.credential.probe import find_lacking_rights, probe_upstream
from holdfast.credential.rights import UIDS, impersonation_rights
from holdfast.credential.sources import open_source
from holdfast.database import Database, sqlite_file
from holdfast.errors import ConfigurationError, HoldfastError, Unavailable
from holdfast.identity.discovery import IssuerDown, choose_loader, metadata_url, open_client
from holdfast.identity.keys import parse_key_set
from holdfast.identity.mapping import UserMapper
from holdfast.identity.saml.signature import read_certificates
from holdfast.identity.serialization import parse_object
from holdfast.identity.token_keys import TokenKeys
from holdfast.masking.plan import compile_plan
from holdfast.policy.authorizer import load_policies

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.audit.keys import Certificate
    from holdfast.credential.rights import Right
    from holdfast.settings import Settings
    from holdfast.settings.audit import Bucket, Timestamp, Witness
    from holdfast.settings.identity import IdentitySection, Issuer, JWTAuthenticator
    from holdfast.settings.saml import SAMLProvider

TIMEOUT_SECONDS = 5
RENEW_DAYS = 30
LOW_DISK_BYTES = 1 << 30
TOLERATED_SKEW_SECONDS = 5.0
REFUSED_SKEW_SECONDS = 30.0
"""Tokens whose `nbf` or `iat` is further in the future than this are refused."""

OTHER_NAME = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH (openssl/x509_vfy.h)."""

ACCEPT = (
    "the gateway does not start: see what `holdfast audit verify` says; where a backup was put back on purpose, run "
    "`holdfast audit accept --reason`"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, "ok", found)


def warn(name: str, found: str, advice: str) -> Check:
    """It works today."""
    return Check(name, "warn", found, advice)


def fail(name: str, found: str, advice: str) -> Check:
    """The gateway would not start, or would refuse calls."""
    return Check(name, "fail", found, advice)


def check_certificates(settings: Settings) -> Check:
    """The listener's certificate: readable, with its key, in date, for the names in `hosts`."""
    listen = settings.listen
    if listen.certificate is None or listen.private_key is None:
        return _check_own_certificate(settings)
    try:
        certificate = x509.load_pem_x509_certificates(listen.certificate.read_bytes())[0]
        key = load_pem_private_key(listen.private_key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        return fail("certificates", f"listen.certificate: {error}", "give a PEM chain and its unencrypted PEM key")
    if certificate.public_key() != key.public_key():
        return fail("certificates", f"{listen.private_key} is another certificate's key", "give the pair")
    return _check_dates(certificate, listen.certificate)


def _check_own_certificate(settings: Settings) -> Check:
    folder = _existing_parent(settings.state_dir)
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail("certificates", f"{folder} cannot be written", "give stateDir to the user who runs Holdfast")
    return ok("certificates", f"made and renewed by Holdfast under {settings.state_dir}")


def _check_dates(certificate: x509.Certificate, file: Path) -> Check:
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    found = f"{file} ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if left.total_seconds() <= 0:
        return fail("certificates", found, "renew it: no client accepts it any more")
    if left.days < RENEW_DAYS:
        return warn("certificates", found, f"renew it: {left.days} days are left")
    return ok("certificates", found)


def check_policies(settings: Settings) -> Check:
    """The policy files: they load, fit together, and their masks compile."""
    try:
        policy = load_policies(settings.policies)
        compile_plan(tuple(compiled.mask for compiled in policy.masks))
    except HoldfastError as error:
        return fail("policies", str(error), "correct it, then run `holdfast policy check`")
    found = f"{len(policy.rules)} rules, {len(policy.masks)} masks, hash {policy.hash[:12]}"
    return ok("policies", found)


def check_store(settings: Settings) -> Check:
    """The audit database: there, of this version, writable, with room left."""
    try:
        file = sqlite_file(settings.database_url)
        if file is not None and not file.exists():
            return _check_future_store(settings, file)
        Database.open_readonly(settings.database_url).close()
        database = Database.open(settings.database_url, create=False)
        try:
            with database.writing():
                pass
            lack = _find_lack(settings, database)
        finally:
            database.close()
    except HoldfastError as error:
        return fail("store", str(error), "calls are refused until the audit database can be written")
    if lack:
        return fail("store", lack, ACCEPT)
    return _check_room(file, f"{file or database.dialect} opens and can be written")


def _find_lack(settings: Settings, database: Database) -> str:
    """Why the gateway would not go on with the database after what it remembers of it; empty when it would."""
    for head in find_heads(settings.state_dir):
        if head.read_gap():
            continue
        try:
            remembered = head.read()
        except ConfigurationError as error:
            return str(error)
        if remembered is not None and (lack := find_lack(LedgerStore(database), remembered)):
            return f"the audit database is not as this gateway left it: {lack}"
    return ""


def check_reading(settings: Settings) -> list[Check]:
    """The other database that is read from, where there is one: the record can be read there."""
    if settings.audit.read_database is None:
        return []
    try:
        with open_reading(settings) as database:
            AuditStore(database).list_calls(limit=1)
    except HoldfastError as error:
        advice = "see to audit.readDatabase: until then the record cannot be listed or verified from here"
        return [warn("readDatabase", str(error), advice)]
    return [ok("readDatabase", f"the record can be read from {database.dialect}")]


def _check_future_store(settings: Settings, file: Path) -> Check:
    if any(head.read() is not None and not head.read_gap() for head in find_heads(settings.state_dir)):
        return fail("store", f"{file} is not there, though this gateway wrote to it", ACCEPT)
    folder = _existing_parent(file)
    if not os.access(folder, os.W_OK | os.X_OK):
        return fail("store", f"{folder} cannot be written", "give it to the user who runs Holdfast")
    if settings.audit.database is not None and not file.parent.exists():
        found = f"{file.parent} is not there; `holdfast serve` makes it, and the database in it"
        return warn("store", found, "where it is to be on another disk, mount that first")
    return _check_room(folder, f"{file} will be made by `holdfast serve`")


def _check_room(place: Path | None, found: str) -> Check:
    if place is None:
        return ok("store", found)
    free = shutil.disk_usage(place).free
    described = f"{found}; {free / (1 << 30):.1f} GiB free"
    if free < LOW_DISK_BYTES:
        return warn("store", described, "make room: on a full disk every call is refused")
    return ok("store", described)


def check_keys(settings: Settings) -> Check:
    """The keys that sign the record: certified for this gateway, in date, the root's private one not here."""
    folder = KeyFolder(settings.key_folder)
    place = _existing_parent(folder.folder)
    if not os.access(place, os.W_OK | os.X_OK):
        return fail("keys", f"{place} cannot be written", "give it to the user who runs Holdfast")
    if not folder.epoch_key.exists() and (folder.root_key.exists() or not folder.root_pub.exists()):
        return ok("keys", f"{folder.epoch_key} will be made by `holdfast serve`")
    try:
        certificate = folder.load_epoch_key().certificate
    except ConfigurationError as error:
        return fail("keys", str(error), "put the file back, or run `holdfast audit keys rotate --root FILE`")
    return _check_certified(certificate, settings, folder)


def _check_certified(certificate: Certificate, settings: Settings, folder: KeyFolder) -> Check:
    replica, now = settings.replica_name, datetime.now(UTC)
    found = f"{folder.epoch_key} is certified until {certificate.not_after:%Y-%m-%d}"
    rotate = "run `holdfast audit keys rotate`"
    if certificate.cluster != settings.cluster or not {replica + role for role in ROLES} <= set(certificate.replicas):
        names = f"{certificate.cluster}/{', '.join(certificate.replicas)}, not {settings.cluster}/{replica}"
        advice = f"{advise_on_name(certificate, settings.cluster)}, or {rotate}"
        return fail("keys", f"{folder.epoch_key} is certified for {names}", advice)
    if not certificate.is_valid_at(now):
        return fail("keys", found, f"{rotate}: nothing can be signed, so calls are refused")
    if certificate.not_after - now < timedelta(days=RENEW_DAYS):
        return warn("keys", found, f"{rotate}: {(certificate.not_after - now).days} days are left")
    if folder.root_key.exists():
        return warn("keys", f"{folder.root_key} is on this machine", "move it away: it can vouch for a forged record")
    return ok("keys", found)


def check_payloads(settings: Settings) -> Check:
    """Where large payloads are kept: a piece can be written there, read back and removed."""
    payloads = settings.audit.payloads
    if payloads.folder is None and payloads.bucket is None:
        return ok("payloads", "kept in the audit database")
    if payloads.folder is not None and not payloads.folder.exists():
        parent = _existing_parent(payloads.folder)
        if not os.access(parent, os.W_OK | os.X_OK):
            return fail("payloads", f"{parent} cannot be written", "give it to the user who runs Holdfast")
        return ok("payloads", f"{payloads.folder} will be made by `holdfast serve`")
    try:
        pieces = open_pieces(payloads, settings.audit.deadline_seconds)
        assert pieces is not None  # noqa: S101  one of them is there
        try:
            pieces.check()
        finally:
            pieces.close()
    except ConfigurationError as error:
        return fail("payloads", str(error), "correct audit.payloads: the gateway does not start")
    return ok("payloads", f"{payloads.folder or payloads.bucket} can be written and read")


def check_anchors(settings: Settings) -> list[Check]:
    """The places outside that keep checkpoints: each configured one can be used."""
    anchors = settings.audit.anchors
    checks = [_check_anchor_file(anchors.file)] if anchors.file is not None else []
    notes = _latest_notes(settings) if anchors.witnesses else []
    checks += [_check_witness(witness, notes) for witness in anchors.witnesses]
    checks += [_check_anchor_bucket(anchors.bucket)] if anchors.bucket is not None else []
    checks += [_check_timestamp(anchors.timestamp)] if anchors.timestamp is not None else []
    return checks or [warn("anchors", "none: the record can be cut without anybody noticing", "set audit.anchors")]


def _check_anchor_file(file: Path) -> Check:
    name = f"anchor {file}"
    place = file if file.exists() else file.parent
    if not os.access(place, os.W_OK):
        return warn(name, f"{place} is not there or cannot be written", "mount it, or give it to Holdfast's user")
    return ok(name, "can be appended to")


def _latest_notes(settings: Settings) -> list[str]:
    """The last checkpoint of the log of each process that anchors one; what is wrong with the store is told there."""
    try:
        with closing(Database.open_readonly(settings.database_url)) as database:
            store = LedgerStore(database)
            logs = (store.last_log(settings.replica_name + role) for role in ("", CONSOLE))
            return [note for log in logs if log is not None and (note := store.latest_note(log))]
    except HoldfastError:
        return []


def _check_witness(settings: Witness, notes: Sequence[str]) -> Check:
    from holdfast.audit.anchors.witness import open_client, parse_key

    name = f"anchor {settings.url}"
    try:
        witness = parse_key(settings)
        with open_client(settings) as client:
            client.get(settings.url)  # it has nothing to get there; any answer will do
            ahead = [told for note in notes if (told := _find_ahead(settings, client, note))]
    except ConfigurationError as error:
        return fail(name, str(error), "correct audit.anchors.witnesses: the gateway does not start")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        found = f"does not answer ({error or type(error).__name__})"
        return warn(name, found, "start it: what it has not cosigned can be cut")
    if ahead:
        return warn(name, "; ".join(ahead), "the log was cut, or put back: see what `holdfast audit verify` says of it")
    return ok(name, f"the witness {witness.name} answers")


def _find_ahead(settings: Witness, client: httpx.Client, note: str) -> str:
    """Say how much more a witness has cosigned of a log than there is; empty when it is no more.

    It names its size when it is asked from another. This asks for growth from a size that it is hardly at, with no
    proof of it, so that it has nothing to cosign.
    """
    from holdfast.audit.anchors.submission import Submission, write_submission
    from holdfast.audit.anchors.witness import HEADERS, Answer, find_size
    from holdfast.audit.checkpoint import parse_checkpoint
    from holdfast.audit.note import BadNote

    try:
        checkpoint, _ = parse_checkpoint(note)
    except BadNote:
        return ""  # which is for `holdfast audit verify` to say
    asked = write_submission(Submission(max(1, checkpoint.size - 1), (), note))
    response = client.post(f"{settings.url.rstrip('/')}/add-checkpoint", content=asked.encode(), headers=HEADERS)
    size = find_size(Answer(response.status_code, response.headers.get("Content-Type", ""), response.text))
    if size is None or size <= checkpoint.size:
        return ""
    return f"has cosigned {checkpoint.origin} at size {size}, which is {checkpoint.size} here"


def _check_anchor_bucket(settings: Bucket) -> Check:
    from holdfast.audit.anchors.bucket import open_bucket

    name = f"anchor {settings.bucket}"
    try:
        open_bucket(settings).check()
    except ConfigurationError as error:
        return fail(name, str(error), "correct audit.anchors.bucket: the gateway does not start")
    except Unavailable as error:
        return warn(name, str(error), "see to the server: what the bucket does not have can be cut")
    return ok(name, f"has object lock; checkpoints stay for {settings.retain_days} days")


def _check_timestamp(settings: Timestamp) -> Check:
    from holdfast.audit.anchors.timestamp import open_timestamp

    name = f"anchor {settings.url}"
    place = _existing_parent(settings.folder)
    try:
        anchor = open_timestamp(settings)
        if not os.access(place, os.W_OK | os.X_OK):
            return warn(name, f"{place} cannot be written", "give it to the user who runs Holdfast")
        anchor.check()
    except ConfigurationError as error:
        return fail(name, str(error), "correct audit.anchors.timestamp: the gateway does not start")
    except Unavailable as error:
        return warn(name, str(error), "see to url and certificateAuthority: what it has not stamped can be cut")
    return ok(name, f"stamps what its authority vouches for, and {settings.folder} can be written")


async def check_issuer(trusted: JWTAuthenticator, identity: IdentitySection) -> Check:
    """One issuer: its expressions compile, its keys can be read and used, and its clock agrees with ours.

    `identity` tells who else is trusted: the gateway does not start where nobody could be let in.
    """
    issuer = trusted.issuer
    name = f"issuer {issuer.url}"
    try:
        UserMapper(trusted)
        keys = parse_key_set(await choose_loader(issuer)(), issuer.algorithms)
    except IssuerDown as error:
        return fail(name, str(error), f"its callers are refused until it answers; {_start_without(identity)}")
    except ConfigurationError as error:
        return fail(name, str(error), "its callers are refused, and the gateway does not start")
    except ValueError as error:
        return fail(name, f"its key set cannot be read: {error}", "check url, or jwksFile: the gateway does not start")
    if not keys.keys:
        found = f"no usable key ({'; '.join(keys.unusable) or 'it publishes none'})"
        return fail(name, found, "check algorithms: the gateway does not start")
    found = f"{len(keys.keys)} keys"
    return ok(name, f"{found} from a file") if issuer.jwks_file else judge_skew(name, found, await _ask_skew(issuer))


def _start_without(identity: IdentitySection) -> str:
    """What an issuer that is down means for the start of the gateway."""
    if identity.saml:
        return "the gateway starts without it, for those whom a SAML provider lets in"
    if len(identity.jwt) > 1:
        return "the gateway starts as long as one other issuer answers"
    return "the gateway does not start before, since there is no other"


def judge_skew(name: str, found: str, skew: float | None) -> Check:
    """Judge by how many seconds the issuer's clock is ahead of ours; None when it did not tell."""
    if skew is None:
        return ok(name, f"{found}; its clock was not told")
    described = f"{found}; its clock differs by {abs(skew):.0f} s"
    if abs(skew) > REFUSED_SKEW_SECONDS:
        return fail(name, described, "set this machine's clock (NTP): good tokens are refused")
    if abs(skew) > TOLERATED_SKEW_SECONDS:
        return warn(name, described, "set this machine's clock (NTP)")
    return ok(name, found)


async def _ask_skew(issuer: Issuer) -> float | None:
    """Seconds that the issuer's Date header (RFC 9110 section 6.6.1) is ahead of us; None without one."""
    try:
        async with await open_client(issuer) as client:
            response = await client.head(issuer.jwks_url or metadata_url(issuer))
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
    except (httpx.HTTPError, OSError, KeyError, ValueError, OverflowError):
        return None


def check_saml_provider(provider: SAMLProvider, now: datetime) -> Check:
    """One SAML provider: a certificate that it may sign with is in date. The provider itself is not asked."""
    name = f"saml {provider.entity_id}"
    certificates = read_certificates(provider.certificates)
    current = [it for it in certificates if it.not_valid_before_utc <= now <= it.not_valid_after_utc]
    advice = "pin the certificate that it signs with next, beside those that are there"
    if not current:
        return fail(name, "none of its certificates is in date", f"{advice}: nobody can log in")
    end = max(certificate.not_valid_after_utc for certificate in current)
    found = f"its certificates end on {end:%Y-%m-%d}"
    return warn(name, found, advice) if end - now < timedelta(days=RENEW_DAYS) else ok(name, found)


def check_tokens(settings: Settings) -> list[Check]:
    """Tokens of our own, where they are given: their keys can be read, and followed by others."""
    if settings.identity.tokens is None:
        return []
    place = _existing_parent(settings.token_key_folder)
    if not os.access(place, os.W_OK | os.X_OK):
        return [fail("tokens", f"{place} cannot be written", "give it to the user who runs Holdfast")]
    try:
        TokenKeys(settings.token_key_folder).check()
    except ConfigurationError as error:
        found, _, order = str(error).removesuffix(".").rpartition("; ")
        return [fail("tokens", found or order, f"{order if found else 'see to it'}: the gateway does not start")]
    if not settings.token_key_folder.exists():
        return [ok("tokens", f"{settings.token_key_folder} will be made by `holdfast serve`")]
    return [ok("tokens", f"signed with the keys in {settings.token_key_folder}")]


async def check_token_endpoint(settings: Settings) -> list[Check]:
    """Where callers get tokens of our own, asked for its keys as they reach it."""
    if settings.identity.tokens is None:
        return []
    url = settings.identity.tokens.url
    name = f"token endpoint {url}"
    advice = "before the gateway runs, that is expected; else callers get no token: see to identity.tokens.url"
    try:
        trust, authority = ssl.create_default_context(), _authority(settings)
        if authority.exists():
            trust.load_verify_locations(authority)
        async with httpx.AsyncClient(verify=trust, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            response = await client.get(f"{url}/jwks")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return [warn(name, f"does not answer ({error or type(error).__name__})", advice)]
    if response.status_code != httpx.codes.OK:
        restart = "start `holdfast serve` again, where tokens were not in its settings yet; else see to the address"
        return [warn(name, f"answered {response.status_code} when asked for its keys", restart)]
    own = _read_key_ids(TokenKeys(settings.token_key_folder).jwks_file)
    if own.isdisjoint(_key_ids(response.content)):
        return [warn(name, f"publishes none of the keys in {settings.token_key_folder}", advice)]
    return [ok(name, "publishes the keys of this gateway")]


def _read_key_ids(file: Path) -> frozenset[str]:
    try:
        return _key_ids(file.read_bytes())
    except OSError:
        return frozenset()


def _key_ids(document: bytes) -> frozenset[str]:
    """The IDs of the keys of a JWKS document; none where it is no such document."""
    try:
        return frozenset(str(key["kid"]) for key in parse_object(document)["keys"])
    except (ValueError, TypeError, KeyError):
        return frozenset()


def check_permissions(settings: Settings) -> Check:
    """Private keys and tokens: nobody else can read them, or put others in their place."""
    exposed = list(find_exposed(settings))
    if not exposed:
        return ok("permissions", "keys and tokens are not open to others")
    found, orders = zip(*exposed, strict=True)
    return warn("permissions", "; ".join(found), f"run `{' && '.join(orders)}`, and replace what others may have read")


async def check_upstream(settings: Settings) -> Check:
    """The API server: reached, trusted, and it accepts the credential."""
    try:
        source = open_source(settings.upstream)
        version = await probe_upstream(source)
    except ConfigurationError as error:
        found, _, order = str(error).removesuffix(".").rpartition("; ")
        return fail("upstream", found or order, order if found else "correct upstream in the settings file")
    return ok("upstream", f"{source.target.url} is {version} and accepts the credential")


async def check_impersonation(settings: Settings) -> list[Check]:
    """Where the API server is to be told who asks: the credential may impersonate."""
    if not settings.upstream.impersonate:
        return []
    try:
        lacking = await find_lacking_rights(open_source(settings.upstream), impersonation_rights(settings.identity))
    except ConfigurationError as error:
        return [fail("impersonation", str(error), "correct upstream in the settings file")]
    return [judge_rights(lacking)]


def judge_rights(lacking: Sequence[Right]) -> Check:
    """Judge by the rights that the credential lacks.

    Those that are narrowed to names by `resourceNames` are only seen where the name is certain, so the lack of any
    other is a warning; but nobody lists uids.
    """
    name = "impersonation"
    advice = "run `holdfast doctor --rbac | kubectl apply -f -`"
    if certain := [right for right in lacking if right.name or right.resource == UIDS]:
        told = ", ".join(f"{right.combined_resource} {right.name}".rstrip() for right in certain)
        return fail(name, f"the credential may not impersonate {told}", f"{advice}: calls get 403")
    if lacking:
        found = f"the credential may not impersonate any {', '.join(right.combined_resource for right in lacking)}"
        return warn(name, found, f"{advice}, unless resourceNames narrow it to the names of your callers")
    return ok(name, "the credential may impersonate callers")


async def check_approvals(settings: Settings) -> Check:
    """The approvals API: where held calls are decided."""
    try:
        server = default_server(settings)
    except ConfigurationError:
        return warn("approvals", "approvals.port is 0", "set approvals.port, or approvals.url")
    start = "start `holdfast serve` or `holdfast console`"
    authority = _authority(settings)
    if not authority.exists():
        return await _find_stranger(settings, "nothing of this gateway") or warn("approvals", "not started yet", start)
    try:
        context = ssl.create_default_context(cafile=authority)
        async with httpx.AsyncClient(verify=context, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            response = await client.get(f"{server}/healthz")
    except (httpx.HTTPError, OSError) as error:
        told = f"{error or type(error).__name__}"
        certificate = find_certificate_error(error)
        if certificate is not None and certificate.verify_code in OTHER_NAME:
            return warn(
                "approvals", f"{server} answers under another name ({told})", "set listen.hosts or approvals.url"
            )
        return await _find_stranger(settings, told) or warn("approvals", f"{server} does not answer ({told})", start)
    if (response.status_code, response.text) != (httpx.codes.OK, "ok\n"):
        found = f"{server} answered {response.status_code}, and not as the approvals API does"
        return fail("approvals", found, "free the port, or check approvals in the settings file")
    return ok("approvals", f"{server} answers")


async def _find_stranger(settings: Settings, told: str) -> Check | None:
    """What holds the port of the approvals API and did not answer as it does; None where nothing listens."""
    approvals = settings.approvals
    if approvals.url is not None:
        return None
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            _, writer = await asyncio.open_connection(approvals.host, approvals.port)
    except OSError:
        return None
    writer.close()
    found = f"another process listens on {approvals.host}:{approvals.port} ({told})"
    return fail("approvals", found, "free the port, or choose another approvals.port: the gateway does not start")


def _authority(settings: Settings) -> Path:
    """The file with whoever signs the listener's certificate; Holdfast's own is made at its first start."""
    listen, own = settings.listen, settings.state_dir / "listener" / "ca.crt"
    return listen.certificate_authority or listen.certificate or own


def _existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())

"""holdfast.yaml: one typed settings file.

Read once at start. An unknown key, a wrong type or a missing value is refused with the file, the field, the
value and what was expected. Relative paths are relative to the folder that holds the file. Keys are written in
camelCase, as in Kubernetes' own configuration files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from holdfast.errors import ConfigurationError

ENVIRONMENT_VARIABLE = "HOLDFAST_CONFIG"
DEFAULT_FILE = Path("holdfast.yaml")
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
"""Clusters and replicas are called so: nothing that a URL, a note or JSON would write otherwise."""


def _resolve(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    return (folder / path.expanduser()).absolute()


FilePath = Annotated[Path, AfterValidator(_resolve)]


class Section(BaseModel):
    """The strictness that every section shares: camelCase keys, nothing unknown, nothing changed later."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=True)


class Listen(Section):
    """Where callers connect. Without a certificate, one is made under `stateDir` for the names in `hosts`."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8443, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    certificate: FilePath | None = Field(None, description="Serving certificate chain, PEM.")
    private_key: FilePath | None = Field(None, description="Key of the serving certificate, PEM.")
    certificate_authority: FilePath | None = Field(
        None, description="CA that clients verify `certificate` with; goes into the kubeconfigs written."
    )
    hosts: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1"), description="Names and addresses in the certificate that Holdfast makes."
    )

    @model_validator(mode="after")
    def _pair(self) -> Listen:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and privateKey go together: give both or neither")
        return self


class Upstream(Section):
    """The API server, and the one credential that reaches it."""

    server: str | None = Field(None, description="`https://HOST:PORT` of the API server.", pattern=r"^https://[^/]+/?$")
    certificate_authority: FilePath | None = Field(None, description="CA of the API server, PEM.")
    token_file: FilePath | None = Field(None, description="Service-account token; read again when it rotates.")
    client_certificate: FilePath | None = Field(None, description="Client certificate, PEM.")
    client_key: FilePath | None = Field(None, description="Key of the client certificate, PEM.")
    kubeconfig: FilePath | None = Field(None, description="Take server, CA and credential from this kubeconfig.")
    context: str | None = Field(None, description="Context in `kubeconfig`; its current one when absent.")

    @model_validator(mode="after")
    def _one_source(self) -> Upstream:
        if self.kubeconfig is not None:
            if self.server or self.token_file or self.client_certificate or self.certificate_authority:
                raise ValueError("kubeconfig already names server, CA and credential: remove the other keys")
            return self
        if self.server is None or self.certificate_authority is None:
            raise ValueError("expected server and certificateAuthority, or kubeconfig")
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("clientCertificate and clientKey go together: give both or neither")
        if (self.token_file is None) == (self.client_certificate is None):
            raise ValueError("expected one credential: tokenFile, or clientCertificate with clientKey")
        return self


class Issuer(Section):
    """One OIDC issuer, with the names of Kubernetes' AuthenticationConfiguration where it has them."""

    url: str = Field(description="The exact `iss` of its tokens.", pattern=r"^https?://")
    audiences: tuple[str, ...] = Field(description="`aud` must hold one of these.", min_length=1)
    jwks_file: FilePath | None = Field(None, description="Keys from this JWKS file instead of discovery.")
    certificate_authority: FilePath | None = Field(
        None, description="CA of the issuer's HTTPS, PEM; else the system's."
    )
    algorithms: tuple[Literal["RS256", "ES256"], ...] = Field(
        ("RS256", "ES256"), description="Signature algorithms that are accepted.", min_length=1
    )
    username_claim: str = Field("sub", description="Claim that names the user.")
    username_prefix: str = Field("", description="Put before every user name of this issuer.")
    groups_claim: str = Field("groups", description="Claim that lists groups.")
    groups_prefix: str = Field("", description="Put before every group of this issuer.")
    max_lifetime_seconds: int = Field(86400, gt=0, description="Tokens that live longer are refused.")

    @model_validator(mode="after")
    def _https(self) -> Issuer:
        if self.jwks_file is None and not self.url.startswith("https://"):
            raise ValueError("an issuer is discovered over https://, or has a jwksFile")
        return self


class IdentitySection(Section):
    """Who may ask."""

    issuers: tuple[Issuer, ...] = Field(description="Trusted issuers.", min_length=1)


class Approvals(Section):
    """The approvals API, where held calls are decided."""

    host: str = Field("127.0.0.1", description="Address of the approvals API.")
    port: int = Field(8444, ge=0, le=65535, description="TCP port of the approvals API; 0 takes a free one.")
    url: str | None = Field(
        None, description="How approvers reach it, where that is not `https://HOST:PORT`.", pattern=r"^https://"
    )
    embedded: bool = Field(True, description="`holdfast serve` starts it as a child process.")


class Payloads(Section):
    """Where large payloads are kept, beside the database: a folder, or a bucket of an S3 server, or neither."""

    folder: FilePath | None = Field(None, description="Folder for large payloads.")
    bucket: str | None = Field(None, description="Bucket for large payloads.")
    prefix: str = Field("", description="Put before every object's name in the bucket.")
    endpoint: str | None = Field(None, description="URL of the S3 server; Amazon's when absent.", pattern=r"^https?://")
    region: str = Field("us-east-1", description="The bucket's region.")
    access_key_file: FilePath | None = Field(None, description="File with the access key; else from the environment.")
    secret_key_file: FilePath | None = Field(None, description="File with the secret key; else from the environment.")
    certificate_authority: FilePath | None = Field(None, description="CA of the S3 server, PEM; else the system's.")
    inline_bytes: int = Field(4096, ge=0, description="Payload pieces up to this length stay in the database.")

    @model_validator(mode="after")
    def _one_place(self) -> Payloads:
        if self.folder is not None and self.bucket is not None:
            raise ValueError("give folder or bucket, not both")
        return self

    @model_validator(mode="after")
    def _key_pair(self) -> Payloads:
        if (self.access_key_file is None) != (self.secret_key_file is None):
            raise ValueError("accessKeyFile and secretKeyFile go together: give both or neither")
        return self


class Witness(Section):
    """A C2SP witness, which cosigns a checkpoint only when the log has grown since the one before."""

    url: str = Field(description="The witness's submission prefix.", pattern=r"^https?://[^@]+$")
    public_key: str = Field(description="The witness's key, `NAME+ID+KEY`.")
    certificate_authority: FilePath | None = Field(None, description="CA of the witness, PEM; else the system's.")


class Bucket(Section):
    """A bucket of an S3 server that was made with object lock."""

    endpoint: str = Field(
        "https://s3.amazonaws.com", description="URL of the S3 server.", pattern=r"^https?://[^/?#@]+/?$"
    )
    bucket: str = Field(description="The bucket, made with object lock.", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    prefix: str = Field("", description="Put before every object's name in the bucket.")
    region: str = Field("us-east-1", description="The bucket's region.")
    access_key_file: FilePath | None = Field(None, description="File with the access key; else from the environment.")
    secret_key_file: FilePath | None = Field(None, description="File with the secret key; else from the environment.")
    certificate_authority: FilePath | None = Field(None, description="CA of the S3 server, PEM; else the system's.")
    retain_days: int = Field(400, gt=0, description="Nobody can remove a checkpoint before so many days have passed.")

    @model_validator(mode="after")
    def _key_pair(self) -> Bucket:
        if (self.access_key_file is None) != (self.secret_key_file is None):
            raise ValueError("accessKeyFile and secretKeyFile go together: give both or neither")
        return self


class Timestamp(Section):
    """An RFC 3161 time-stamping authority."""

    url: str = Field(description="Where the authority takes requests.", pattern=r"^https?://[^@]+$")
    certificate_authority: FilePath = Field(description="CA of the certificate that signs its tokens, PEM.")
    folder: FilePath = Field(description="Folder for checkpoints and their tokens.")
    interval_seconds: float = Field(
        3600.0, gt=0, description="How often it is asked at most; public authorities want no more."
    )


class Anchors(Section):
    """Where checkpoints go, so that who can write the database cannot change what they have seen."""

    interval_seconds: float = Field(5.0, gt=0, description="How often new checkpoints are sent to the anchors.")
    alarm_seconds: float = Field(
        60.0, gt=0, description="An anchor that lags by more than this and its own interval is an error in the log."
    )
    file: FilePath | None = Field(None, description="File that checkpoints are appended to; on another machine's disk.")
    witnesses: tuple[Witness, ...] = Field((), description="Witnesses that cosign checkpoints.")
    bucket: Bucket | None = Field(None, description="Bucket with object lock.")
    timestamp: Timestamp | None = Field(None, description="Time-stamping authority.")


class PayloadRetention(Section):
    """Bodies that go before their records do; the globs are those of policies."""

    name: str = Field(description="The rule's name; goes into the record of what it erased.", pattern=NAME_PATTERN)
    older_than_days: int = Field(ge=0, description="Bodies of days that ended more than so many days ago are erased.")
    resources: tuple[str, ...] = Field(("*",), description="`pods`, `pods/log`, `secrets`.", min_length=1)
    verbs: tuple[str, ...] = Field(("*",), description="`get`, `list`, `watch`.", min_length=1)
    namespaces: tuple[str, ...] = Field(("*",), description="Namespaces.", min_length=1)
    users: tuple[str, ...] = Field(("*",), description="User names.", min_length=1)
    verdicts: tuple[Literal["*", "allowed", "denied", "held", "approved", "expired", "cancelled", "refused"], ...] = (
        Field(("*",), description="`allowed`, `denied` and so on, as lists show them.", min_length=1)
    )


class Retention(Section):
    """What `holdfast audit retention run` removes; nothing unless it is set."""

    max_age_days: int | None = Field(
        None, ge=1, description="Days that ended more than so many days ago are dropped, but for their leaf hashes."
    )
    max_bytes: int | None = Field(
        None, ge=1, description="The oldest days are dropped until database and object store take no more bytes."
    )
    payloads: tuple[PayloadRetention, ...] = Field((), description="Bodies that go earlier.")

    @model_validator(mode="after")
    def _distinct_names(self) -> Retention:
        if len({rule.name for rule in self.payloads}) < len(self.payloads):
            raise ValueError("a name of its own for each of payloads")
        return self


class Audit(Section):
    """Where the record is kept."""

    database: str | None = Field(
        None, description="SQLAlchemy URL, sqlite or postgresql; `audit.db` under stateDir when absent."
    )
    read_database: str | None = Field(
        None,
        description="SQLAlchemy URL that list, show, export, verify, prove and reconcile read instead: a replica, or a "
        "role that only reads.",
    )
    keys: FilePath | None = Field(
        None, description="Folder of the keys that sign the record; `audit-keys` under stateDir when absent."
    )
    payloads: Payloads = Field(default_factory=Payloads)
    retention: Retention = Field(default_factory=Retention)
    anchors: Anchors = Field(default_factory=Anchors)
    epoch_records: int = Field(1_000_000, gt=0, description="A log is followed by the next after so many records.")
    receipts: bool = Field(
        True, description="Answers carry `Audit-Receipt`: their record's place, leaf and checkpoint."
    )
    queue_records: int = Field(5000, gt=0, description="Records that may wait for the writer before calls get 503.")
    queue_bytes: int = Field(
        256 << 20, gt=0, description="Bytes of records, bodies included, that may wait; one alone always may."
    )
    deadline_seconds: float = Field(5.0, gt=0, description="A record that is not durable by then fails its call.")
    stream_lag_bytes: int = Field(4 << 20, gt=0, description="Unrecorded stream bytes before streams are slowed.")


class Metrics(Section):
    """Figures for Prometheus."""

    host: str = Field("127.0.0.1", description="Address where `/metrics` is served, to anybody who asks.")
    port: int | None = Field(None, ge=0, le=65535, description="TCP port of `/metrics`; not served when absent.")


class Limits(Section):
    """Bounds on one call."""

    request_body_bytes: int = Field(3 << 20, gt=0, description="Largest request body; the API server's own is 3 MiB.")
    response_buffer_bytes: int = Field(4 << 20, gt=0, description="Responses longer than this are streamed.")
    masked_buffer_bytes: int = Field(64 << 20, gt=0, description="Longest response that a mask is applied to whole.")
    drain_seconds: float = Field(30.0, ge=0, description="How long running calls get to end at shutdown.")


class Settings(Section):
    """The whole file."""

    cluster: str = Field(
        "kubernetes", description="The cluster's name in records, holds and kubeconfigs.", pattern=NAME_PATTERN
    )
    replica: str | None = Field(
        None,
        description="This gateway's name in records, its own where several share a database; HOST:PORT when absent.",
        pattern=NAME_PATTERN,
    )
    state_dir: FilePath = Field(
        Path("state"), validate_default=True, description="Folder for what Holdfast makes itself."
    )
    listen: Listen = Field(default_factory=Listen)
    upstream: Upstream
    identity: IdentitySection
    policies: tuple[FilePath, ...] = Field(description="Policy files, composed.", min_length=1)
    approvals: Approvals = Field(default_factory=Approvals)
    audit: Audit = Field(default_factory=Audit)
    metrics: Metrics = Field(default_factory=Metrics)
    limits: Limits = Field(default_factory=Limits)

    @property
    def replica_name(self) -> str:
        """This gateway's name in records."""
        return self.replica or f"{os.uname().nodename}:{self.listen.port}"

    @property
    def key_folder(self) -> Path:
        """The folder of the keys that sign the record."""
        return self.audit.keys or self.state_dir / "audit-keys"

    @property
    def database_url(self) -> str:
        """The audit database's SQLAlchemy URL."""
        return self.audit.database or f"sqlite:///{self.state_dir / 'audit.db'}"

    @property
    def read_database_url(self) -> str:
        """The SQLAlchemy URL of the database that commands which only read open."""
        return self.audit.read_database or self.database_url

    @property
    def mask_key_file(self) -> Path:
        """The HMAC key of mask fingerprints, made at first start (0600)."""
        return self.state_dir / "mask.key"


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the settings file: `path`, else $HOLDFAST_CONFIG, else ./holdfast.yaml.

    Raises ConfigurationError with the file, field, value and what was expected.
    """
    file = path or Path(os.environ.get(ENVIRONMENT_VARIABLE, DEFAULT_FILE))
    return parse_model(Settings, read_yaml(file), file)


def read_file(file: Path) -> bytes:
    """The bytes of a file that a setting names. Raises ConfigurationError when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}.") from error


def read_yaml(file: Path) -> Any:
    """Parse one YAML 1.2 document; duplicate keys, tags and syntax errors raise ConfigurationError."""
    try:
        return YAML(typ="safe", pure=True).load(read_file(file).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file}: is not UTF-8 text (byte {error.start}).") from error
    except YAMLError as error:
        raise ConfigurationError(f"{file}: is not valid YAML: {_first_line(error)}") from error


def parse_model[M: BaseModel](model: type[M], value: Any, file: Path) -> M:
    """Check `value` against `model`; the first fault becomes one sentence with file, field, value, expectation."""
    if not isinstance(value, dict):
        raise ConfigurationError(f"{file}: expected a mapping of settings, found {_shown(value)}.")
    try:
        return model.model_validate(value, context={"folder": file.absolute().parent}, by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigurationError(_sentence(file, dict(first))) from error


def _sentence(file: Path, fault: dict[str, Any]) -> str:
    field = ".".join(str(part) for part in fault["loc"]) or "the file"
    expected = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        return f"{file}: {field}: there is no such key; check its spelling."
    if fault["type"] == "missing":
        return f"{file}: {field}: is missing."
    return f"{file}: {field}: found {_shown(fault.get('input'))}; expected: {expected[:1].lower()}{expected[1:]}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _first_line(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})." if mark else f"{problem}."

"""The section `audit`: where the record is kept, for how long, and who holds it to what it said."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from holdfast.settings.section import FilePath, Name, Section, ServiceAddress, matching

Endpoint = Annotated[
    str, matching(r"https?://[^/?#@\s]+/?", "https://HOST:PORT, without a path, query, user name or password")
]
BucketName = Annotated[
    str,
    matching(
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "a bucket's name: 3 to 63 small letters, digits, dots and hyphens, a letter or digit first and last",
    ),
]


class Payloads(Section):
    """Where large payloads are kept, beside the database: a folder, or a bucket of an S3 server, or neither."""

    folder: FilePath | None = Field(None, description="Folder for large payloads.")
    bucket: str | None = Field(None, description="Bucket for large payloads.")
    prefix: str = Field("", description="Put before every object's name in the bucket.")
    endpoint: ServiceAddress | None = Field(None, description="URL of the S3 server; Amazon's when absent.")
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

    url: ServiceAddress = Field(description="The witness's submission prefix.")
    public_key: str = Field(description="The witness's key, `NAME+ID+KEY`.")
    certificate_authority: FilePath | None = Field(None, description="CA of the witness, PEM; else the system's.")


class Bucket(Section):
    """A bucket of an S3 server that was made with object lock."""

    endpoint: Endpoint = Field("https://s3.amazonaws.com", description="URL of the S3 server.")
    bucket: BucketName = Field(description="The bucket, made with object lock.")
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

    url: ServiceAddress = Field(description="Where the authority takes requests.")
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

    name: Name = Field(description="The rule's name; goes into the record of what it erased.")
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

"""holdfast.yaml: one typed settings file.

Read once at start. An unknown key, a wrong type or a missing value is refused with the file, the field, the
value and what was expected. Relative paths are relative to the folder that holds the file. Keys are written in
camelCase, as in Kubernetes' own configuration files.

    section   what all sections share, and how YAML is read
    values    what some values must be like, each by itself
    saml      SAML's providers
    identity  who may ask: issuers, and how their claims become users
    audit     where the record is kept
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from holdfast.settings.audit import Audit
from holdfast.settings.identity import IdentitySection, include_certificates, include_configuration
from holdfast.settings.section import FilePath, Misfit, Name, Section, matching, parse_model, read_yaml

ENVIRONMENT_VARIABLE = "HOLDFAST_CONFIG"
DEFAULT_FILE = Path("holdfast.yaml")

ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  compared, not bound

ServerAddress = Annotated[str, matching(r"https://[^/\s]+/?", "https://HOST:PORT, without a path")]
SecureAddress = Annotated[str, matching(r"https://\S+", "an https:// address")]


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

    server: ServerAddress | None = Field(None, description="`https://HOST:PORT` of the API server.")
    certificate_authority: FilePath | None = Field(None, description="CA of the API server, PEM.")
    token_file: FilePath | None = Field(None, description="Service-account token; read again when it rotates.")
    client_certificate: FilePath | None = Field(None, description="Client certificate, PEM.")
    client_key: FilePath | None = Field(None, description="Key of the client certificate, PEM.")
    kubeconfig: FilePath | None = Field(None, description="Take server, CA and credential from this kubeconfig.")
    context: str | None = Field(None, description="Context in `kubeconfig`; its current one when absent.")
    impersonate: bool = Field(
        False, description="The API server is told who asks, by user impersonation; else it sees the gateway only."
    )

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


class Approvals(Section):
    """The approvals API, where held calls are decided."""

    host: str = Field("127.0.0.1", description="Address of the approvals API.")
    port: int = Field(8444, ge=0, le=65535, description="TCP port of the approvals API; 0 takes a free one.")
    url: SecureAddress | None = Field(
        None, description="How approvers reach it, where that is not `https://HOST:PORT`."
    )
    embedded: bool = Field(True, description="`holdfast serve` starts it as a child process.")


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

    cluster: Name = Field("kubernetes", description="The cluster's name in records, holds and kubeconfigs.")
    replica: Name | None = Field(
        None,
        description="This gateway's name in records, its own where several share a database; HOST:PORT when absent.",
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

    @model_validator(mode="after")
    def _two_ports(self) -> Settings:
        """Where both are children of one command, they are on one machine."""
        listen, approvals = self.listen, self.approvals
        is_same_host = listen.host == approvals.host or bool({listen.host, approvals.host} & ANY_ADDRESS)
        if approvals.embedded and is_same_host and listen.port == approvals.port != 0:
            raise Misfit("approvals.port", approvals.port, "another port than listen.port")
        return self

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
    def token_key_folder(self) -> Path:
        """The folder of the keys that sign tokens of our own."""
        return (self.identity.tokens and self.identity.tokens.keys) or self.state_dir / "token-keys"

    @property
    def mask_key_file(self) -> Path:
        """The HMAC key of mask fingerprints, made at first start (0600)."""
        return self.state_dir / "mask.key"


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the settings file: `path`, else $HOLDFAST_CONFIG, else ./holdfast.yaml.

    Raises ConfigurationError with the file, field, value and what was expected.
    """
    file = find_settings(path)
    settings = parse_model(Settings, read_yaml(file), file)
    identity = include_certificates(include_configuration(settings.identity))
    return settings.model_copy(update={"identity": identity})


def find_settings(path: Path | None = None) -> Path:
    """The settings file: `path`, else $HOLDFAST_CONFIG, else ./holdfast.yaml."""
    return path or Path(os.environ.get(ENVIRONMENT_VARIABLE, DEFAULT_FILE))

"""What is wrong at start: one sentence on standard error, exit code 2, no traceback, nothing listening."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attacks.conftest import free_port
from attacks.scripted_upstream import ScriptedUpstream, answer, send
from holdfast.certificates import make_authority
from holdfast.cli.application import app
from holdfast.database import Database
from holdfast.migrations import VERSION_TABLE
from recording_upstream import TOKEN
from running import RunningGateway, Upstream, trusted_issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REVIEW = b"/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass
class Site:
    """A configuration that works, to be broken."""

    gateway: RunningGateway
    upstream: ScriptedUpstream

    @property
    def folder(self) -> Path:
        """Where holdfast.yaml is."""
        return self.gateway.folder

    def configure(self, section: str, **values: object) -> None:
        """Change a section; None removes a key."""
        config = json.loads(self.gateway.config_file.read_text())
        merged = {**config.get(section, {}), **values}
        config[section] = {key: value for key, value in merged.items() if value is not None}
        self.gateway.config_file.write_text(json.dumps(config))

    def set(self, **values: object) -> None:
        """Change keys of the whole file."""
        config = json.loads(self.gateway.config_file.read_text())
        self.gateway.config_file.write_text(json.dumps({**config, **values}))

    def write(self, text: str) -> None:
        """Replace the whole file."""
        self.gateway.config_file.write_text(text)

    def kubeconfig(self, *, context: str = "c", user: dict[str, Any] | None = None) -> None:
        """Take the credential from a kubeconfig instead."""
        file = self.folder / "kubeconfig"
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {"server": self.upstream.server, "certificate-authority": str(self.upstream.ca_file)},
                }
            ],
            "users": [{"name": "u", "user": user or {"token": TOKEN}}],
        }
        file.write_text(json.dumps(document))
        self.set(upstream={"kubeconfig": str(file), "context": context})


@pytest.fixture
def site(tmp_path: Path, upstream: ScriptedUpstream) -> Site:
    """A folder with a configuration that works."""
    gateway = RunningGateway(tmp_path / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN))
    gateway.write_config(listen_port=0)
    return Site(gateway, upstream)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


def expired_pair(site: Site) -> None:
    now = datetime.now(UTC)
    authority = make_authority("clients", now=now - timedelta(days=9), days=5)
    pair = authority.issue("gateway", hosts=("gateway",), now=now - timedelta(days=9), days=5)
    (site.folder / "client.crt").write_bytes(pair.certificate_pem)
    (site.folder / "client.key").write_bytes(pair.key_pem)
    site.configure("upstream", tokenFile=None, clientCertificate="client.crt", clientKey="client.key")


def make_newer_database(site: Site) -> None:
    file = site.gateway.database
    file.parent.mkdir()
    Database.open(f"sqlite:///{file}").close()
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    connection.close()


def make_other_database(site: Site) -> None:
    file = site.gateway.database
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


def write(site: Site, name: str, content: str | bytes) -> str:
    file = site.folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def refuse_credential(site: Site) -> None:
    site.upstream.acts[b"/version"] = send(answer(b"{}", code=401))


def be_anonymous(site: Site) -> None:
    review = {"status": {"userInfo": {"username": "system:anonymous"}}}
    site.upstream.answers[REVIEW] = json.dumps(review).encode()


def unreachable_issuer(site: Site) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    site.configure("identity", jwt=[trusted_issuer(url=url, audiences=["a"])])


def block_state_folder(site: Site) -> None:
    (site.folder / "state").write_text("a file")


FAULTS: dict[str, tuple[Callable[[Site], object], str]] = {
    "malformed YAML": (lambda site: site.write("a: [1"), "is not valid YAML"),
    "an empty file": (lambda site: site.write(""), "expected a mapping"),
    "a duplicate key": (lambda site: site.write("a: 1\na: 2\n"), "is not valid YAML"),
    "not text": (lambda site: write(site, "holdfast.yaml", b"\xff\xfe"), "is not UTF-8"),
    "no file": (lambda site: site.gateway.config_file.unlink(), "name one with --config, or write one: README.md has"),
    "an unknown key": (lambda site: site.set(listn={}), "listn: there is no such key"),
    "a wrong type": (lambda site: site.configure("listen", port="many"), "listen.port: found 'many'; expected"),
    "a missing section": (lambda site: site.set(identity={}), "identity: found {}; expected: jwt"),
    "two credentials": (lambda site: site.configure("upstream", clientCertificate="x", clientKey="y"), "credential"),
    "a missing policy file": (lambda site: site.set(policies=["none.yaml"]), "none.yaml"),
    "a bad policy": (lambda site: site.set(policies=[write(site, "p.yaml", "kind: Policy\nrules: 5\n")]), "p.yaml"),
    "an issuer over HTTP": (
        lambda site: site.configure("identity", jwt=[trusted_issuer(url="http://issuer.test", audiences=["a"])]),
        "an issuer is discovered over https://",
    ),
    "an issuer without an audience": (
        lambda site: site.configure("identity", jwt=[trusted_issuer(url="https://issuer.test", audiences=[])]),
        "identity.jwt.0.issuer.audiences: found []",
    ),
    "an issuer with a bad CA": (
        lambda site: site.configure("identity", jwt=[trusted_issuer(certificateAuthority="ca.crt")]),
        "expected: certificates in PEM",
    ),
    "an issuer with a CA file that is none": (
        lambda site: site.configure("identity", jwt=[trusted_issuer(certificateAuthorityFile=write(site, "x", b"x"))]),
        "/x holds no certificate in PEM",
    ),
    "an issuer with an unknown field": (
        lambda site: site.configure("identity", jwt=[trusted_issuer(clientID="x")]),
        "identity.jwt.0.issuer.clientID: there is no such key",
    ),
    "an expression that is none": (
        lambda site: site.configure(
            "identity", jwt=[trusted_issuer() | {"userValidationRules": [{"expression": "user.username ="}]}]
        ),
        "userValidationRules.0.expression",
    ),
    "an issuer that cannot be reached": (unreachable_issuer, "https://127.0.0.1:"),
    "a missing JWKS file": (
        lambda site: site.configure("identity", jwt=[trusted_issuer(url="https://i", audiences=["a"], jwksFile="no")]),
        "no",
    ),
    "an upstream that cannot be reached": (
        lambda site: site.configure("upstream", server=f"https://127.0.0.1:{free_port()}"),
        "cannot be reached",
    ),
    "an upstream of another name": (
        lambda site: site.configure("upstream", server=site.upstream.server.replace("127.0.0.1", "localhost")),
        "not for localhost",
    ),
    "an upstream of another CA": (
        lambda site: site.configure(
            "upstream",
            certificateAuthority=write(
                site, "ca", make_authority("other", now=datetime.now(UTC), days=2).certificate_pem
            ),
        ),
        "not trusted",
    ),
    "a refused credential": (refuse_credential, "does not accept the gateway's token"),
    "a credential that makes us anonymous": (be_anonymous, "does not accept the gateway's token"),
    "an expired client certificate": (expired_pair, "expired on"),
    "an empty token file": (lambda site: site.gateway.token_file.write_text(""), "expected one bearer token"),
    "a missing token file": (lambda site: site.gateway.token_file.unlink(), "cannot be read"),
    "a missing CA file": (lambda site: site.configure("upstream", certificateAuthority="none.crt"), "none.crt"),
    "a CA file that is none": (
        lambda site: site.configure("upstream", certificateAuthority=write(site, "ca", "x")),
        "expected a CA certificate",
    ),
    "a state folder that cannot be made": (block_state_folder, "cannot be written"),
    "a newer database": (make_newer_database, "newer Holdfast"),
    "another program's database": (make_other_database, "another program"),
    "a database that is a folder": (lambda site: site.gateway.database.mkdir(parents=True), "cannot be"),
    "a database that is none": (
        lambda site: site.configure("audit", database=f"sqlite:///{write(site, 'x.db', 'x' * 5000)}"),
        "not a SQLite database",
    ),
    "a database URL of another kind": (lambda site: site.configure("audit", database="mysql://x"), "expected sqlite"),
    "a kubeconfig without the context": (lambda site: site.kubeconfig(context="d"), "there is none called 'd'"),
    "a kubeconfig with an exec plugin": (
        lambda site: site.kubeconfig(user={"exec": {"command": "aws"}}),
        "runs a program",
    ),
    "a kubeconfig without a credential": (lambda site: site.kubeconfig(user={"x": 1}), "has no credential"),
    "a listener certificate that is missing": (
        lambda site: site.configure("listen", certificate="no.crt", privateKey="no.key"),
        "no.crt",
    ),
    "a listener certificate that is none": (
        lambda site: site.configure("listen", certificate=write(site, "c", "x"), privateKey=write(site, "k", "y")),
        "certificate",
    ),
}


def serve(site: Site) -> subprocess.CompletedProcess[str]:
    """`holdfast serve`, which must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast.cli", "serve", "--config", str(site.gateway.config_file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "HOLDFAST_CONFIG": ""},
        timeout=60,
    )


def assert_one_sentence(ended: subprocess.CompletedProcess[str], expected: str) -> None:
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if " INFO " not in line]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("holdfast: ")
    assert lines[0].endswith(".")
    assert expected in lines[0]
    assert "Traceback" not in ended.stderr
    assert "ready" not in ended.stdout
    assert TOKEN not in ended.stderr


def serve_here(site: Site) -> subprocess.CompletedProcess[str]:
    """The same in this process, which is quicker, for faults found before anything of mitmproxy's is made."""
    ended = CliRunner().invoke(app, ["serve", "--config", str(site.gateway.config_file)])
    return subprocess.CompletedProcess([], ended.exit_code, ended.stdout, ended.stderr)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_start_is_one_sentence_and_exit_code_2(site: Site, fault: str) -> None:
    break_it, expected = FAULTS[fault]
    break_it(site)
    assert_one_sentence(serve_here(site), expected)
    assert site.upstream.calls() == []


@pytest.mark.parametrize("fault", ["malformed YAML", "a refused credential", "a listener certificate that is none"])
def test_a_fault_at_start_ends_a_process_of_its_own_the_same_way(site: Site, fault: str) -> None:
    break_it, expected = FAULTS[fault]
    break_it(site)
    assert_one_sentence(serve(site), expected)


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(site: Site, taken: int) -> None:
    site.configure("listen", port=taken)
    assert_one_sentence(serve(site), "listen.port")


def test_a_port_of_the_approvals_api_that_is_taken_is_one_sentence_and_exit_code_2(site: Site, taken: int) -> None:
    site.configure("approvals", port=taken, embedded=True)
    assert_one_sentence(serve(site), "approvals.port")

"""The authority, judged by others: OpenSSL in its strict mode over a real handshake, and cryptography's parser."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from holdfast.certificates import Authority, IssuedPair, find_certificate_error, make_authority, write_private
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)
AUTHORITY = make_authority("test authority", now=NOW)


def server_context(pair: IssuedPair, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=AUTHORITY.certificate_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return with_pair(context, pair, folder / "server.pem")


def client_context(pair: IssuedPair, folder: Path, authority: Authority = AUTHORITY) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
    return with_pair(context, pair, folder / "client.pem")


def with_pair(context: ssl.SSLContext, pair: IssuedPair, file: Path) -> ssl.SSLContext:
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    write_private(file, pair.key_pem + pair.certificate_pem)
    context.load_cert_chain(file)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """Run one TLS handshake in memory; return the server's end, which has verified the client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    client_end = client.wrap_bio(to_client, to_server, server_hostname=host)
    waiting = [client_end, server_end]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    assert not waiting
    return server_end


@pytest.mark.parametrize("host", ["localhost", "kubernetes.default.svc", "127.0.0.1", "::1"])
def test_openssl_in_strict_mode_accepts_server_and_client(host: str, tmp_path: Path) -> None:
    server = AUTHORITY.issue("server", hosts=["localhost", "kubernetes.default.svc", "127.0.0.1", "::1"], now=NOW)
    client = AUTHORITY.issue("admin", organizations=["system:masters"], client=True, now=NOW)
    end = shake_hands(server_context(server, tmp_path), client_context(client, tmp_path), host)
    verified = end.getpeercert()
    assert verified is not None
    assert verified["subject"] == ((("organizationName", "system:masters"),), (("commonName", "admin"),))


def test_a_certificate_is_good_for_its_hosts_only(tmp_path: Path) -> None:
    server = server_context(AUTHORITY.issue("server", hosts=["localhost"], now=NOW), tmp_path)
    client = client_context(AUTHORITY.issue("admin", client=True, now=NOW), tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(server, client, "127.0.0.1")


def test_a_client_certificate_serves_nobody(tmp_path: Path) -> None:
    pair = AUTHORITY.issue("admin", client=True, now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake_hands(server_context(pair, tmp_path), client_context(pair, tmp_path), "localhost")


def test_another_authority_of_the_same_name_is_not_trusted(tmp_path: Path) -> None:
    server = server_context(AUTHORITY.issue("server", hosts=["localhost"], now=NOW), tmp_path)
    client = AUTHORITY.issue("admin", client=True, now=NOW)
    other = make_authority("test authority", now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client_context(client, tmp_path, other), "localhost")


def test_a_leaf_cannot_issue(tmp_path: Path) -> None:
    leaf = AUTHORITY.issue("leaf", hosts=["localhost"], now=NOW)
    with pytest.raises(ConfigurationError, match="not a CA"):
        Authority.load(leaf.certificate_pem, leaf.key_pem)


@pytest.mark.parametrize(
    ("hosts", "client", "purposes"),
    [
        (["localhost"], False, [ExtendedKeyUsageOID.SERVER_AUTH]),
        ([], True, [ExtendedKeyUsageOID.CLIENT_AUTH]),
        (["localhost"], True, [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
    ],
)
def test_a_certificate_is_for_what_was_asked(
    hosts: list[str], client: bool, purposes: list[x509.ObjectIdentifier]
) -> None:
    certificate = parse(AUTHORITY.issue("leaf", hosts=hosts, client=client, now=NOW))
    assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == purposes


def test_a_certificate_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="host names"):
        AUTHORITY.issue("nobody", now=NOW)


def test_a_host_that_is_no_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="IDNA"):
        AUTHORITY.issue("server", hosts=["größe.example"], now=NOW)


@given(days=st.integers(1, 20_000), seconds=st.integers(0, 2**31))
def test_validity_is_counted_from_now_with_room_for_lagging_clocks(days: int, seconds: int) -> None:
    now = datetime.fromtimestamp(seconds, UTC)
    certificate = parse(AUTHORITY.issue("leaf", client=True, now=now, days=days))
    assert certificate.not_valid_before_utc == now - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == now + timedelta(days=days)


def test_serial_numbers_and_keys_differ() -> None:
    pairs = [AUTHORITY.issue("same", client=True, now=NOW) for _ in range(5)]
    assert len({parse(pair).serial_number for pair in pairs}) == 5
    assert len({pair.key_pem for pair in pairs}) == 5


def test_a_loaded_authority_issues_as_the_first_did() -> None:
    loaded = Authority.load(AUTHORITY.certificate_pem, AUTHORITY.key_pem)
    assert loaded == AUTHORITY
    leaf = parse(loaded.issue("leaf", client=True, now=NOW))
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY.certificate_pem))
    assert leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "test authority"


def rsa_key() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        (b"nonsense", AUTHORITY.key_pem, "certificate cannot be read"),
        (AUTHORITY.certificate_pem, b"nonsense", "key cannot be read"),
        (AUTHORITY.certificate_pem, rsa_key(), "elliptic-curve"),
        (AUTHORITY.certificate_pem, make_authority("other", now=NOW).key_pem, "another certificate"),
    ],
)
def test_what_is_no_authority_is_not_loaded(certificate: bytes, key: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        Authority.load(certificate, key)


def test_keys_stay_out_of_repr() -> None:
    pair = AUTHORITY.issue("leaf", client=True, now=NOW)
    assert "PRIVATE" not in repr(AUTHORITY) + repr(pair)


def test_a_private_file_is_the_owners_alone_and_replaces_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text("old")
    file.chmod(0o644)
    write_private(file, b"new")
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_file_that_cannot_be_put_in_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "taken", b"secret")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def parse(pair: IssuedPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate_pem)


def raise_below(fault: Exception, *, chained: bool) -> Exception:
    """What a client raises in place of `fault`, with it as cause, or only as context."""
    try:
        try:
            raise fault
        except (OSError, ssl.SSLError) as error:
            raise OSError("connection failed") from (error if chained else None)
    except OSError as error:
        return error


@pytest.mark.parametrize("chained", [True, False])
def test_the_fault_of_a_certificate_is_found_below_other_errors(chained: bool) -> None:
    fault = ssl.SSLCertVerificationError("self-signed")
    assert find_certificate_error(fault) is fault
    assert find_certificate_error(raise_below(fault, chained=chained)) is fault


def test_other_faults_are_none_of_a_certificate() -> None:
    assert find_certificate_error(None) is None
    assert find_certificate_error(raise_below(ssl.SSLError("no TLS"), chained=True)) is None

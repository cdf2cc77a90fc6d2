"""Every answer carries the receipt of its record, and nobody but the gateway can give one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attacks.conftest import POD_PATH, Target
from attacks.scripted_upstream import send
from attacks.test_http2_attacks import H2Client
from attacks.test_store_failures import full_disk
from holdfast.audit.checkpoint import open_checkpoint
from holdfast.audit.keys import KeyFolder, parse_certificate
from holdfast.audit.receipt import HEADER, parse_receipt
from holdfast.audit.record import Record, decode
from holdfast.audit.store import LedgerStore
from holdfast.audit.tree import hash_leaf
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.scripted_upstream import Act

PODS_PATH = "/api/v1/namespaces/demo/pods"
FORGED = b"Audit-Receipt: forged\r\naudit-receipt: again\r\n"


def check(target: Target, header: str) -> Record:
    """Hold a receipt against the database and the root's key; return the record that it is for."""
    receipt = parse_receipt(header)
    database = Database.open_readonly(f"sqlite:///{target.gateway.database}")
    try:
        store = LedgerStore(database)
        row = store.find_log(receipt.origin)
        assert row is not None
        leaf = list(store.leaves(row))[receipt.seq]
    finally:
        database.close()
    assert hash_leaf(leaf) == receipt.leaf_hash
    root = KeyFolder(target.gateway.database.parent / "audit-keys").root_verifier()
    checkpoint = open_checkpoint(receipt.note, parse_certificate(row.certificate, root).verifier_for(receipt.origin))
    assert checkpoint.size > receipt.seq
    return decode(leaf).record


@pytest.mark.parametrize(
    ("method", "path", "token", "code"),
    [
        ("GET", POD_PATH, "", 200),
        ("POST", PODS_PATH, "", 200),
        ("DELETE", "/api/v1/namespaces/kube-system/pods/p", "", 403),
        ("GET", POD_PATH, None, 401),
        ("GET", POD_PATH + "/%2e%2e/x", "", 400),
    ],
)
def test_an_answer_carries_the_receipt_of_its_outcome(
    target: Target, method: str, path: str, token: str | None, code: int
) -> None:
    answer = target.call(method, path, token=token)
    assert answer.status_code == code
    record = check(target, answer.headers[HEADER])
    assert record.kind == "outcome"
    assert (record.refusal.code if record.refusal else record.response.code if record.response else 0) == code


def test_a_stream_carries_the_receipt_of_its_opening(target: Target) -> None:
    event = b'{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"p"}}}\n'
    target.upstream.acts[PODS_PATH.encode()] = send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(event), event)
    )
    answer = target.call("GET", PODS_PATH + "?watch=1")
    assert answer.content == event
    assert check(target, answer.headers[HEADER]).kind == "open"


def test_an_answer_that_outgrew_the_buffer_carries_the_receipt_of_its_opening(target: Target) -> None:
    piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    target.upstream.acts[POD_PATH.encode()] = send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        + piece * 5
        + b"0\r\n\r\n"
    )
    answer = target.call("GET", POD_PATH)
    assert len(answer.content) == 5 << 20
    assert check(target, answer.headers[HEADER]).kind == "open"


def test_a_switch_of_protocols_carries_the_receipt_of_its_opening_and_no_other(target: Target) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    target.upstream.acts[f"{POD_PATH}/exec".encode()] = send(
        b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + FORGED + b"\r\n", close=True
    )
    with target.connect() as connection:
        connection.sendall(
            target.fill(
                f"GET {POD_PATH}/exec?command=id&stdout=true HTTP/1.1\r\nHost: h\r\n".encode()
                + b"Authorization: Bearer <token>\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
                + upgrade
                + b"\r\n"
            )
        )
        head = connection.recv(65536).decode()
    assert head.startswith("HTTP/1.1 101 ")
    (given,) = [line[len(HEADER) + 2 :] for line in head.split("\r\n") if line.lower().startswith(HEADER.lower())]
    assert check(target, given).kind == "open"


@pytest.mark.parametrize(
    "act",
    [
        send(b"", close=True),
        send(b"SSH-2.0-x\r\n\r\n\r\n", close=True),
        send(b"HTTP/1.1 401 Unauthorized\r\n" + FORGED + b"Content-Length: 0\r\n\r\n"),
        send(b"HTTP/1.1 200 OK\r\n" + FORGED + b"Content-Length: 100\r\n\r\n{", close=True),
    ],
)
def test_the_status_in_place_of_a_bad_answer_carries_a_receipt_too(target: Target, act: Act) -> None:
    target.upstream.acts[POD_PATH.encode()] = act
    answer = target.call("GET", POD_PATH)
    assert answer.status_code == 502
    (given,) = answer.headers.get_list(HEADER)
    refusal = check(target, given).refusal
    assert refusal is not None
    assert refusal.code == 502


def test_the_status_for_what_is_no_http_carries_a_receipt_too(target: Target) -> None:
    target.upstream.acts[POD_PATH.encode()] = send(b"HTTP/1.1 200 OK\r\nX A: b\r\nContent-Length: 2\r\n\r\n{}")
    answer = target.call("GET", POD_PATH)
    assert answer.status_code == 502
    assert "from server" in check(target, answer.headers[HEADER]).error
    both = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
    head = f"POST {PODS_PATH} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer <token>\r\n".encode()
    refused = target.send(head + both)
    assert refused.code == 400
    assert check(target, refused.headers[HEADER.lower()]).refusal


def test_a_receipt_from_behind_the_gateway_does_not_get_through(target: Target) -> None:
    target.upstream.acts[POD_PATH.encode()] = send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + FORGED + b"Content-Length: 2\r\n\r\n{}"
    )
    answer = target.call("GET", POD_PATH)
    assert (answer.status_code, answer.content) == (200, b"{}")
    (given,) = answer.headers.get_list(HEADER)
    assert check(target, given).kind == "outcome"


def test_a_receipt_comes_over_http2_as_well(target: Target) -> None:
    with target.connect("h2") as connection:
        client = H2Client(connection, target.gateway.token("agent", "agents"))
        assert client.code(client.head(POD_PATH)) == 200
    (head,) = client.heads.values()
    assert check(target, head[HEADER.lower()]).kind == "outcome"


def test_there_is_no_receipt_for_what_could_not_be_recorded(make_target: Callable[..., Target]) -> None:
    target = make_target(settings={"audit": {"deadlineSeconds": 1.0}})
    with full_disk(target):
        answer = target.call("GET", POD_PATH)
    assert answer.status_code == 503
    assert HEADER not in answer.headers


def test_without_receipts_there_is_none_nor_does_one_get_through(make_target: Callable[..., Target]) -> None:
    target = make_target(settings={"audit": {"receipts": False}})
    target.upstream.acts[POD_PATH.encode()] = send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + FORGED + b"Content-Length: 2\r\n\r\n{}"
    )
    answer = target.call("GET", POD_PATH)
    assert answer.status_code == 200
    assert HEADER not in answer.headers

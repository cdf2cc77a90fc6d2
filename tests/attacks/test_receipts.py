"""Every answer carries the receipt of its record, and nobody but the gateway can give one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attacks.conftest import POD_PATH, Target
from attacks.scripted_upstream import send
from attacks.test_store_failures import full_disk
from holdfast.audit.checkpoint import open_checkpoint
from holdfast.audit.keys import KeyFolder, parse_certificate
from holdfast.audit.receipt import HEADER, Receipt, parse_receipt
from holdfast.audit.record import Record, decode
from holdfast.audit.store import LedgerStore
from holdfast.audit.tree import hash_leaf
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

PODS_PATH = "/api/v1/namespaces/demo/pods"


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


def test_a_receipt_from_behind_the_gateway_does_not_get_through(target: Target) -> None:
    target.upstream.acts[POD_PATH.encode()] = send(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nAudit-Receipt: forged\r\naudit-receipt: again\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    answer = target.call("GET", POD_PATH)
    assert (answer.status_code, answer.content) == (200, b"{}")
    (given,) = answer.headers.get_list(HEADER)
    assert isinstance(parse_receipt(given), Receipt)
    check(target, given)


def test_there_is_no_receipt_for_what_could_not_be_recorded(make_target: Callable[..., Target]) -> None:
    target = make_target(settings={"audit": {"deadlineSeconds": 1.0}})
    with full_disk(target):
        answer = target.call("GET", POD_PATH)
    assert answer.status_code == 503
    assert HEADER not in answer.headers


def test_receipts_can_be_turned_off(make_target: Callable[..., Target]) -> None:
    target = make_target(settings={"audit": {"receipts": False}})
    assert HEADER not in target.call("GET", POD_PATH).headers

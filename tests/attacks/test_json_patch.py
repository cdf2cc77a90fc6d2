"""A JSON Patch that reads what is masked: to copy it out, or to guess at it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Target

SECRET = "/api/v1/namespaces/demo/secrets/database?dryRun=All"


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "copy", "from": "/data/password", "path": "/metadata/annotations/x"},
        {"op": "move", "from": "/data/password", "path": "/metadata/annotations/x"},
        {"op": "test", "path": "/data/password", "value": "aHVudGVyMg=="},
    ],
    ids=lambda operation: operation["op"],
)
def test_a_patch_that_reads_what_is_masked_is_refused_and_reaches_nothing(
    target: Target, operation: dict[str, str]
) -> None:
    answer = target.call(
        "PATCH",
        SECRET,
        token=target.gateway.token("alice", "platform"),
        headers={"Content-Type": "application/json-patch+json"},
        content=json.dumps([operation]),
    )
    assert answer.status_code == 422
    assert operation["op"] in answer.json()["message"]
    assert target.upstream.received == b""

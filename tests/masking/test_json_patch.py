"""JSON Patch operations that would carry a masked value away, or tell whether it was guessed, are found."""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.exchange import Mask
from holdfast.masking.body import mask_object
from holdfast.masking.json_patch import find_forbidden_operation
from holdfast.masking.plan import Plan, compile_plan
from holdfast.masking.states import EXEMPT, LAST_APPLIED

if TYPE_CHECKING:
    from holdfast.masking.fingerprint import Views

SECRETS = compile_plan((Mask("secret-values", fields=("$.stringData.*",), base64_fields=("$.data.*",)),))
ANYWHERE = compile_plan((Mask("passwords", fields=("$..password",)),))
FIRST_ENV = compile_plan((Mask("env", fields=("$.spec.containers[1].env[*].value",)),))
SLASHED = compile_plan((Mask("slashed", fields=("$.data['a/b~c']",)),))
TO = "/metadata/annotations/x"
UNREADABLE = "it cannot be read; expected a list of operations without repeated keys (RFC 6902)"


def patch(*operations: object) -> bytes:
    return json.dumps(operations).encode()


def reads(operation: str, place: str) -> dict[str, object]:
    if operation == "test":
        return {"op": "test", "path": place, "value": "aHVudGVyMg=="}
    return {"op": operation, "from": place, "path": TO}


MASKED_PLACES = {
    "a value": (SECRETS, "/data/password"),
    "all values": (SECRETS, "/data"),
    "the whole object": (SECRETS, ""),
    "below a value": (SECRETS, "/data/password/x"),
    "the copy that kubectl apply keeps": (
        SECRETS,
        "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration",
    ),
    "what holds that copy": (SECRETS, "/metadata/annotations"),
    "text before the first slash, which the API server passes over": (SECRETS, "labels/data/password"),
    "no slash at all": (SECRETS, "data"),
    "a field at any depth": (ANYWHERE, "/metadata/labels/password"),
    "what may have it below": (ANYWHERE, "/spec/template"),
    "escapes": (SLASHED, "/data/a~1b~0c"),
    "the index itself": (FIRST_ENV, "/spec/containers/1/env/0/value"),
    "an index that another operation may shift": (FIRST_ENV, "/spec/containers/0/env/0/value"),
    "an index from the end": (FIRST_ENV, "/spec/containers/-1/env/-1/value"),
    "an index with a sign and zeros": (FIRST_ENV, "/spec/containers/+01/env/+00/value"),
}


@pytest.mark.parametrize("operation", ["copy", "move", "test"])
@pytest.mark.parametrize(("plan", "place"), MASKED_PLACES.values(), ids=MASKED_PLACES)
def test_an_operation_that_reads_what_is_masked_is_named(plan: Plan, place: str, operation: str) -> None:
    body = patch({"op": "add", "path": TO, "value": "1"}, reads(operation, place))
    assert find_forbidden_operation(body, plan) == (
        f"operation 1 ({operation}) reads what is masked; only add, remove and replace can be used there"
    )


OPEN_PLACES = {
    "the version": (SECRETS, "/metadata/resourceVersion"),
    "the version, whatever the depth of masks": (ANYWHERE, "/metadata/resourceVersion"),
    "a label": (SECRETS, "/metadata/labels/app"),
    "another annotation": (SECRETS, "/metadata/annotations/owner"),
    "the type": (SECRETS, "/type"),
    "another key": (SLASHED, "/data/a~1b~1c"),
    "an image beside masked values": (FIRST_ENV, "/spec/containers/1/image"),
    "everything, where nothing is masked": (Plan(), ""),
}


@pytest.mark.parametrize("operation", ["copy", "move", "test"])
@pytest.mark.parametrize(("plan", "place"), OPEN_PLACES.values(), ids=OPEN_PLACES)
def test_an_operation_that_reads_what_is_not_masked_is_left_alone(plan: Plan, place: str, operation: str) -> None:
    assert find_forbidden_operation(patch(reads(operation, place)), plan) is None


@pytest.mark.parametrize("operation", ["add", "remove", "replace"])
def test_an_operation_that_only_writes_is_left_alone(operation: str) -> None:
    assert (
        find_forbidden_operation(patch({"op": operation, "path": "/data/password", "value": "eA=="}), SECRETS) is None
    )


UNSOUND = {
    "no JSON": (b"[{", UNREADABLE),
    "no list": (b'{"op": "copy"}', UNREADABLE),
    "no objects": (b'["copy"]', UNREADABLE),
    "an operation said twice": (b'[{"op": "copy", "op": "add", "from": "/data", "path": "/a"}]', UNREADABLE),
    "a place said twice": (b'[{"op": "test", "path": "/data/x", "path": "/type", "value": ""}]', UNREADABLE),
    "an operation that is no text": (b'[{"op": 1}]', UNREADABLE),
    "a place that is no text": (b'[{"op": "test", "path": null}]', UNREADABLE),
    "bytes that are no UTF-8": (b'[{"op": "test", "path": "\xff"}]', UNREADABLE),
    "no operation": (b"[{}]", "operation 0 is none of add, remove, replace, copy, move, test"),
    "an operation in capitals": (b'[{"op": "Copy"}]', "operation 0 is none of add, remove, replace, copy, move, test"),
    "a copy of nothing": (b'[{"op": "copy", "path": "/a"}]', "operation 0 (copy) has no from"),
    "a test of nothing": (b'[{"op": "test", "value": 1}]', "operation 0 (test) has no path"),
}


@pytest.mark.parametrize(("body", "why"), UNSOUND.values(), ids=UNSOUND)
def test_what_cannot_be_judged_is_forbidden(body: bytes, why: str) -> None:
    assert find_forbidden_operation(body, SECRETS) == why


def test_an_empty_patch_reads_nothing() -> None:
    assert find_forbidden_operation(b" [ ] ", SECRETS) is None


# The outside judge is masking itself: whatever a patch that passes copies is not masked where it stood.

DOCUMENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {
        "name": "db",
        "resourceVersion": "7",
        "labels": {"app": "db", "password": "hunter2"},
        "annotations": {LAST_APPLIED[-1]: '{"data": {"password": "aHVudGVyMg=="}}', "owner": "me"},
    },
    "data": {"password": base64.b64encode(b"hunter2").decode(), "0": "eA=="},
    "spec": {"containers": [{"image": "a", "env": []}, {"image": "b", "env": [{"name": "n", "value": "hunter2"}]}]},
    "type": "Opaque",
}


def places(value: object, pointer: str = "") -> list[str]:
    found = [pointer]
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        found += places(child, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")
    return found


def value_at(document: Any, pointer: str) -> Any:
    for token in pointer.split("/")[1:]:
        document = document[int(token) if isinstance(document, list) else token.replace("~1", "/").replace("~0", "~")]
    return document


@given(st.sampled_from(places(DOCUMENT)), st.sampled_from([SECRETS, ANYWHERE, FIRST_ENV, SLASHED]))
def test_what_may_be_copied_is_what_masking_leaves_alone(views: Views, place: str, plan: Plan) -> None:
    masked = json.loads(mask_object(json.dumps(copy.deepcopy(DOCUMENT)).encode(), plan, views).caller)
    if find_forbidden_operation(patch(reads("copy", place)), plan) is None:
        assert value_at(masked, place) == value_at(DOCUMENT, place)


def test_what_clients_test_for_is_never_forbidden() -> None:
    for path in EXEMPT:
        assert (
            find_forbidden_operation(
                patch(reads("test", "/" + "/".join(path).replace("k8s.io/", "k8s.io~1"))), ANYWHERE
            )
            is None
        )

"""Accept values that real clients send, and what is left of them; the types of bodies."""

import pytest

from holdfast.kube.negotiation import is_json, is_json_patch, is_yaml, json_accept

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PROTOBUF = "application/vnd.kubernetes.protobuf"

ACCEPTS = {
    "": "application/json",
    " , ,": "application/json",
    "*/*": "*/*",
    "application/json": "application/json",
    "application/json, */*": "application/json, */*",
    f"{PROTOBUF},application/json": "application/json",
    f"{PROTOBUF}, */*": "*/*",
    PROTOBUF: "application/json",
    f"{PROTOBUF};stream=watch": "application/json",
    "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch": "application/json;stream=watch",
    f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json": (
        f"{TABLE}, application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json"
    ),
    f"{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{PARTIAL},application/json": (
        f"{PARTIAL}, application/json"
    ),
    "application/cbor, application/json;q=0.9, application/yaml;q=0.8": "application/json;q=0.9",
    "application/cbor-seq": "application/json",
    "application/yaml": "application/json",
    "text/html,application/xhtml+xml,*/*;q=0.8": "*/*;q=0.8",
    "Application/JSON ; as=Table": "Application/JSON ; as=Table",
    "application/*, text/*": "application/json",
    "application/jsonx, xapplication/json": "application/json",
}


@pytest.mark.parametrize(("sent", "kept"), ACCEPTS.items())
def test_only_json_is_asked_for(sent: str, kept: str) -> None:
    assert json_accept(sent) == kept


@pytest.mark.parametrize("sent", ACCEPTS)
def test_narrowing_twice_changes_nothing(sent: str) -> None:
    assert json_accept(json_accept(sent)) == json_accept(sent)


TYPES = {
    "application/json": {is_json},
    "Application/JSON; charset=utf-8": {is_json},
    "application/merge-patch+json": {is_json},
    "application/strategic-merge-patch+json": {is_json},
    "application/json-patch+json": {is_json, is_json_patch},
    "application/vnd.kubernetes.protobuf": set(),
    "application/vnd.kubernetes.protobuf;stream=watch": set(),
    "application/yaml": {is_yaml},
    "application/apply-patch+yaml": {is_yaml},
    "application/apply-patch+cbor": set(),
    "application/cbor": set(),
    "text/plain;application/json": set(),
    "application/json, application/yaml": set(),
    "": set(),
}


@pytest.mark.parametrize("content_type", TYPES)
def test_a_body_is_what_its_type_says_and_nothing_when_unsure(content_type: str) -> None:
    checks = (is_json, is_json_patch, is_yaml)
    assert {check for check in checks if check(content_type)} == TYPES[content_type]

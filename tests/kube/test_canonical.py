"""What the wire may say: one spelling for each path, everything else refused with the right spelling named."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import BadRequest
from holdfast.kube.canonical import (
    MAX_PATH_BYTES,
    MAX_QUERY_BYTES,
    MAX_QUERY_PARAMETERS,
    CanonicalTarget,
    canonicalize,
    carries_token,
)
from holdfast.kube.request_info import parse_request_info

SECRET = "/api/v1/namespaces/default/secrets/x"

HOSTILE = [
    # Not a path
    b"",
    b"*",
    b"api/v1/pods",
    b"http://10.0.0.1/api/v1/pods",
    b"https://10.0.0.1:6443/api/v1/pods",
    b"HTTP://kubernetes/api/v1/pods",
    b"kubernetes:443",
    b"?watch=1",
    # Empty and dot segments
    b"//api/v1/pods",
    b"//kubernetes/api/v1/pods",
    b"/api//v1/pods",
    b"/api/v1/namespaces//secrets",
    b"/api/v1/pods//",
    b"//",
    b"/.",
    b"/..",
    b"/api/v1/../v1/pods",
    b"/api/v1/./pods",
    b"/api/v1/namespaces/default/pods/../secrets/x",
    b"/api/v1/pods/..",
    b"/api/v1/%2e%2e/pods",
    b"/api/v1/%2E%2E/pods",
    b"/api/v1/.%2E/pods",
    b"/api/v1/%2e/pods",
    b"/api/v1/namespaces/default/pods/%2E%2E/secrets/x",
    # A slash at the end of a resource's path
    b"/api/v1/pods/",
    b"/api/v1/namespaces/default/secrets/x/",
    b"/apis/apps/v1/deployments/",
    b"/healthz/",
    b"/openapi/",
    # Parameters, backslashes, fragments
    b"/api/v1/namespaces/default/secrets;/x",
    b"/api/v1/namespaces/default/secrets/x;a=b",
    b"/api;/v1/pods",
    b"/api/v1/namespaces/default/secrets%3Bx",
    b"/api/v1\\namespaces\\default\\secrets",
    b"/api/v1/..\\secrets",
    b"/api/v1/pods%5Cx",
    b"/api/v1/pods#/../secrets",
    b"/api/v1/pods?a=1#b",
    # Control bytes, spaces, raw bytes
    b"/api/v1/pods\x00",
    b"/api/v1/pods\r\nX: y",
    b"/api/v1/pods\t",
    b"/api/v1/pods x",
    b"/api/v1/pods\x7f",
    b"/api/v1/pods\x1b[2J",
    b"/api/v1/pods?a=b c",
    b"/api/v1/pods\xff",
    "/api/v1/namespaces/défaut/pods".encode(),
    "/api/v1/pods?labelSelector=é".encode(),
    b"/api/v1/pods%00",
    b"/api/v1/pods%0A",
    b"/api/v1/pods%0D%0AImpersonate-User:x",
    b"/api/v1/pods%7F",
    b"/api/v1/pods%C2%85",
    b"/api/v1/pods/web%E2%80%AEtxt",
    # Escapes that are no escapes, or not UTF-8
    b"/api/v1/pods/%",
    b"/api/v1/pods/%4",
    b"/api/v1/pods/%zz",
    b"/api/v1/pods/%u0073",
    b"/api/v1/pods/%+1",
    b"/api/v1/pods/%FF",
    b"/api/v1/pods/%C0%AE",
    b"/api/v1/pods/%C0%AF",
    b"/api/v1/pods/%ED%A0%80",
    # A second spelling of the same name
    b"/api/v1/namespaces/default/%73ecrets/x",
    b"/api/v1/namespaces/default/%53ecrets/x",
    b"/%61pi/v1/namespaces/default/secrets/x",
    b"/api/v1/namespaces%2Fdefault/secrets/x",
    b"/api/v1/namespaces/default%2Fsecrets%2Fx",
    b"/api/v1%2Fnamespaces/default/secrets/x",
    b"/api/v1/namespaces/default%2fsecrets/x",
    b"/api/v1/namespaces/default/secrets%252Fx",
    b"/api/v1/namespaces/default/secrets/x%25",
    b"/api/v1/namespaces/default/secrets/%2D",
    b"/api/v1/namespaces/default/secrets/a%7Eb",
    b"/api/v1/namespaces/default/secrets/a%3ab",
    b"/api/v1/namespaces/default/secrets/%c3%a9",
    b"/api/v1/namespaces/default/secrets/a:b%3Ac",
    b'/api/v1/namespaces/default/secrets/a"b',
    b"/api/v1/namespaces/default/secrets/a|b",
    b"/api/v1/namespaces/default/secrets/{x}",
    b"/api/v1/namespaces/default/secrets/a!b",
    # The query
    b"/api/v1/pods?watch=1;fieldSelector=x",
    b"/api/v1/pods?a=%",
    b"/api/v1/pods?a=%G0",
    b"/api/v1/pods?%=a",
    b"/api/v1/pods?a=%FF",
    b"/api/v1/pods?a=%00",
    b"/api/v1/pods?watch=0&watch=1",
    b"/api/v1/pods?watch=0&%77atch=1",
    b"/api/v1/pods?watch&watch=1",
    b"/api/v1/pods?fieldSelector=a=b&fieldSelector=c=d",
    b"/api/v1/pods?access_token=abc",
    b"/api/v1/pods?token=abc",
    b"/api/v1/pods?%74oken=abc",
    b"/api/v1/pods?Access_Token=abc",
    b"/api/v1/pods?a\\=b",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_a_target_with_two_readings_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as refusal:
        canonicalize(target)
    assert str(refusal.value)[-1] in ".)"


ACCEPTED = {
    b"/": "/",
    b"/api": "/api",
    b"/api/": "/api/",
    b"/apis/": "/apis/",
    b"/version/": "/version/",
    b"/api/v1/": "/api/v1/",
    b"/apis/apps/": "/apis/apps/",
    b"/apis/apps/v1/": "/apis/apps/v1/",
    b"/readyz/etcd": "/readyz/etcd",
    b"/.well-known/openid-configuration": "/.well-known/openid-configuration",
    b"/api/v1/namespaces/default/pods/web-0": "/api/v1/namespaces/default/pods/web-0",
    b"/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node": (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
    ),
    b"/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode": (
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"
    ),
    b"/apis/example.com/v1/things/two%20words": "/apis/example.com/v1/things/two words",
    b"/apis/example.com/v1/things/caf%C3%A9": "/apis/example.com/v1/things/café",
    b"/apis/example.com/v1/things/a@b,c=d&e+f$g": "/apis/example.com/v1/things/a@b,c=d&e+f$g",
    b"/apis/example.com/v1/things/...": "/apis/example.com/v1/things/...",
    b"/api/v1/namespaces/default/services/https:web:443/proxy/index.html": (
        "/api/v1/namespaces/default/services/https:web:443/proxy/index.html"
    ),
}


@pytest.mark.parametrize(("target", "path"), ACCEPTED.items())
def test_a_target_with_one_reading_is_decoded_and_kept(target: bytes, path: str) -> None:
    assert canonicalize(target) == CanonicalTarget(path, target)


QUERIES = {
    b"": (),
    b"watch": (("watch", ""),),
    b"watch=": (("watch", ""),),
    b"a=1&&b=2&": (("a", "1"), ("b", "2")),
    b"a=b=c": (("a", "b=c"),),
    b"labelSelector=app+in+%28a%2Cb%29": (("labelSelector", "app in (a,b)"),),
    b"fieldSelector=metadata.name%3dweb": (("fieldSelector", "metadata.name=web"),),
    b"command=sh&command=-c&command=a%3B%20b%0Ac": (("command", "sh"), ("command", "-c"), ("command", "a; b\nc")),
    b"unheardOf=%E2%82%AC": (("unheardOf", "€"),),
    b"tokens=3&mytoken=4": (("tokens", "3"), ("mytoken", "4")),
}


@pytest.mark.parametrize(("raw", "query"), QUERIES.items())
def test_a_query_is_read_as_go_reads_it(raw: bytes, query: tuple[tuple[str, str], ...]) -> None:
    target = SECRET.encode() + b"?" + raw
    assert canonicalize(target) == CanonicalTarget(SECRET, target, query)


def test_a_refusal_names_the_right_spelling() -> None:
    with pytest.raises(BadRequest, match="write it as 'secrets'"):
        canonicalize(b"/api/v1/namespaces/default/%73ecrets/x")


@pytest.mark.parametrize("query", [b"access_token=hunter2", b"token=hunter2", b"a=hunter2&a=hunter2", b"a=hunter2%"])
def test_a_refusal_never_repeats_a_value(query: bytes) -> None:
    with pytest.raises(BadRequest) as refusal:
        canonicalize(b"/api/v1/pods?" + query)
    assert "hunter2" not in str(refusal.value)


def test_lengths_are_bounded_and_the_bounds_themselves_are_accepted() -> None:
    path = b"/" + b"a" * (MAX_PATH_BYTES - 1)
    query = b"a=" + b"b" * (MAX_QUERY_BYTES - 2)
    assert canonicalize(path + b"?" + query).target == path + b"?" + query
    for longer in (path + b"a", path + b"?" + query + b"b"):
        with pytest.raises(BadRequest, match="at most"):
            canonicalize(longer)


def test_more_parameters_than_go_reads_are_refused() -> None:
    """Go reads such a query as empty, and `watch=1` in it as a list."""
    watch = b"/api/v1/pods?watch=1"
    assert canonicalize(watch + b"&" * (MAX_QUERY_PARAMETERS - 1)).query == (("watch", "1"),)
    with pytest.raises(BadRequest, match="parameters"):
        canonicalize(watch + b"&" * MAX_QUERY_PARAMETERS)


segments = st.text(
    st.one_of(st.sampled_from("abz09-_.~$&+,:=@ !'()*[]?#\"|é€/%;\\\n"), st.characters(codec="utf-8")), max_size=8
)
spellings = st.sampled_from(["$&+,:=@", "", "!$&'()*+,:=@"])


@st.composite
def targets(draw: st.DrawFn) -> bytes:
    start = draw(st.sampled_from(["/api/v1", "/apis/apps/v1", "/apis", "", "/api/v1/watch", "/api/v1/namespaces/x"]))
    path = start + "".join("/" + quote(name, safe=draw(spellings)) for name in draw(st.lists(segments, max_size=5)))
    return path.encode() or b"/"


@settings(deadline=None)
@given(targets())
def test_an_accepted_target_decodes_to_what_is_classified_and_encodes_to_the_same_bytes(target: bytes) -> None:
    try:
        accepted = canonicalize(target)
        info = parse_request_info("GET", accepted)
    except BadRequest:
        return
    raw = target.decode("ascii").split("/")
    decoded = [unquote(segment, errors="strict") for segment in raw]
    assert info.target == accepted.target == target
    assert info.path == accepted.path == "/".join(decoded)
    assert list(info.parts) == [segment for segment in decoded if segment][-len(info.parts) or len(decoded) :]
    assert all(
        segment in {quote(name, safe="$&+,:=@"), quote(name, safe="")}
        for segment, name in zip(raw, decoded, strict=True)
    )


@settings(deadline=None)
@given(st.binary(max_size=60).map(lambda tail: b"/api/v1/pods" + tail))
def test_any_bytes_are_read_one_way_or_refused(target: bytes) -> None:
    try:
        accepted = canonicalize(target)
    except BadRequest:
        return
    path, _, _ = target.partition(b"?")
    assert "/".join(unquote(segment) for segment in path.decode("ascii").split("/")) == accepted.path
    assert accepted.path.count("/") == path.count(b"/")


CARRYING = [
    b"token=abc",
    b"access_token=abc",
    b"token",
    b"watch=1&token=abc",
    b"watch=1&&TOKEN=abc",
    b"%74oken=abc",
    b"access%5Ftoken=abc",
    b"%61%63%63%65%73%73%5f%74%6f%6b%65%6e=abc",
    # What servers could read in two ways
    b"a=1;token=abc",
    b"a=%zz&%74oken=abc",
    b"a=%ff&token=abc",
    b"a=%00&Token=abc",
    b"a= b&token=abc",
    b"a=1#token=abc",
    b"a=1\\token=abc",
    b"a=\xff&token=abc",
    b"token%=abc",
]
NOT_CARRYING = [
    b"",
    b"&",
    b"watch=1",
    b"command=echo&command=token",
    b"command=token%3Dabc",
    b"command=a%26token=abc",
    b"tokens=3&mytoken=4",
    b"%2574oken=abc",
    b"a=%zz&watch=1",
    b"a=1;watch=1",
]


@pytest.mark.parametrize("query", CARRYING)
def test_a_token_in_a_query_is_found_by_its_name_however_it_is_spelled(query: bytes) -> None:
    assert carries_token(query)
    assert carries_token(query.decode("latin-1"))


@pytest.mark.parametrize("query", NOT_CARRYING)
def test_a_value_that_speaks_of_tokens_is_no_token(query: bytes) -> None:
    assert not carries_token(query)
    assert not carries_token(query.decode("latin-1"))


@given(st.binary() | st.text(st.characters(exclude_categories=[])))
def test_no_query_is_too_odd_to_be_asked(query: bytes | str) -> None:
    assert carries_token(query) in {True, False}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_is_accepted_carries_no_token(text: str) -> None:
    query = quote(text, safe="=&").encode()
    try:
        canonicalize(b"/api?" + query)
    except BadRequest:
        return
    assert not carries_token(query)

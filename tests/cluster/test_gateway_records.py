"""The gateway's record against an independent witness, the API server's own audit log: one call here, one call there.

And what must be nowhere: refused calls in the API server, secrets and credentials in the gateway's files.
"""

from __future__ import annotations

import base64
import json
import signal
import ssl
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from holdfast.audit.store import AuditStore, CallStory, Filters
from holdfast.credential.probe import REVIEW_PATH
from holdfast.database import Database
from holdfast.replay.story import latest, response_body
from kubectl import Kubectl, find_versions
from running import read_stored

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.audit.record import CallRow
    from running import RunningGateway
    from testcluster import Cluster

    Admin = Callable[..., subprocess.CompletedProcess[str]]

NAMESPACE = "demo-records"
GATEWAY = "system:serviceaccount:kube-system:holdfast"
PASSWORD = "correct-horse-battery-staple"
LOGGED = "swordfish-in-a-log"
PATIENCE_SECONDS = 20
NOTICED_SECONDS = 2


@pytest.fixture(scope="module", autouse=True)
def namespace(admin: Admin) -> Iterator[None]:
    """Where the calls go: a pod to look into, one whose log tells a password, and a Secret."""
    admin("create", "namespace", NAMESPACE)
    admin("run", "shell", "-n", NAMESPACE, "--image=none")
    # Spelled backwards, because the pod's own command line is no secret and is recorded with the pod.
    script = f"echo begin; echo password=$(echo {LOGGED[::-1]} | rev); echo end; exec sleep 600"
    admin("run", "talks", "-n", NAMESPACE, "--image=none", "--", "sh", "-c", script)
    admin("create", "secret", "generic", "db", "-n", NAMESPACE, f"--from-literal=password={PASSWORD}")
    admin("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/shell", "pod/talks", "--timeout=30s")
    yield
    admin("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def record(gateway: RunningGateway) -> Iterator[AuditStore]:
    database = Database.open_readonly(f"sqlite:///{gateway.database}")
    yield AuditStore(database)
    database.close()


@pytest.fixture
def user() -> str:
    """Somebody whom no other test knows."""
    return f"someone-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def kubectl(gateway: RunningGateway, cluster: Cluster, user: str, tmp_path: Path) -> Kubectl:
    """That person, an agent, with the cluster's own kubectl."""
    return Kubectl(cluster.kubectl, gateway.kubeconfig(user, "agents"), NAMESPACE, tmp_path)


def finished(record: AuditStore, filters: Filters) -> list[CallStory]:
    """The calls meant, oldest first, as soon as the outcome of each is known; a stream's comes after its client's."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not all(row.complete for row in record.list_calls(filters, limit=1000)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return list(record.iter_calls(filters))


def held(record: AuditStore, user: str, name: str) -> CallRow:
    """The user's call that waits, on the object called `name`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        for row in record.list_calls(Filters(user=user, verdict="held")):
            if row.name == name:
                return row
        assert time.monotonic() < deadline, f"no hold for {name}"
        time.sleep(0.05)


def ask(gateway: RunningGateway, target: str, **headers: str) -> httpx.Response:
    """One GET as no kubectl would send it; a header that is empty is left out."""
    trust = ssl.create_default_context(cafile=gateway.ca_file)
    return httpx.get(
        gateway.url + target, verify=trust, headers={key: value for key, value in headers.items() if value}
    )


def seen_ids(cluster: Cluster) -> Counter[str]:
    """How often each Audit-ID arrived at the API server under the gateway's credential."""
    return Counter(event["auditID"] for event in arrivals(cluster))


def arrivals(cluster: Cluster) -> list[dict[str, Any]]:
    """The audit events of what arrived under the gateway's credential, oldest first."""
    events = [event for event in cluster.audit_events() if event["stage"] == "RequestReceived"]
    return [event for event in events if event["user"].get("username") == GATEWAY]


# -- one to one --------------------------------------------------------------------------------------------------


def test_every_call_let_through_and_no_other_is_in_the_api_server_s_log(
    gateway: RunningGateway, cluster: Cluster, kubectl: Kubectl, user: str, record: AuditStore
) -> None:
    kubectl.ok("get", "pods")
    kubectl.fails("get", "pod", "absent")
    kubectl.ok("create", "configmap", "counted", "--from-literal=key=value")
    kubectl.ok("label", "configmap", "counted", "seen=yes")
    kubectl.ok("logs", "shell")
    kubectl.ok("exec", "shell", "--", "true")
    kubectl.ok("delete", "configmap", "counted")
    kubectl.fails("delete", "pod", "etcd", "-n", "kube-system")
    calls = {story.call.audit_id: story.call for story in finished(record, Filters())}
    let_through = {key for key, call in calls.items() if call.verdict in {"allowed", "approved"}}
    events = arrivals(cluster)
    seen = seen_ids(cluster)
    assert set(seen.values()) == {1}
    assert let_through <= seen.keys()
    # What the gateway asked for itself, before it listened:
    own = [event["requestURI"] for event in events if event["auditID"] not in let_through]
    assert own == ["/version", REVIEW_PATH]
    assert {key: calls[key].uri for key in let_through} == {
        event["auditID"]: event["requestURI"] for event in events if event["auditID"] in let_through
    }
    mine = [call for call in calls.values() if call.username == user]
    assert {"list", "get", "create", "patch", "delete"} <= {call.verb for call in mine}


def test_what_is_refused_never_arrives(
    gateway: RunningGateway, cluster: Cluster, kubectl: Kubectl, user: str, admin: Admin, record: AuditStore
) -> None:
    admin("create", "namespace", f"kept-{user}")
    kubectl.fails("delete", "pod", "shell", "-n", "kube-system")
    kubectl.fails("create", "secret", "generic", "mine", "--from-literal=key=value")
    kubectl.fails("get", "pods", "--as=system:admin")
    with kubectl.started("delete", "namespace", f"kept-{user}") as waiting:
        decide(gateway, "deny", held(record, user, f"kept-{user}").hold_id, "--reason", "it is in use")
        assert "it is in use" in waiting.communicate()[0]
    tokens = ("", "Bearer nonsense", f"Bearer {gateway.upstream.token}")
    answers = [ask(gateway, "/api/v1/pods", Authorization=token) for token in tokens]
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    stories = finished(record, Filters(user=user))
    refused = [story.call for story in stories if story.call.verdict != "allowed"]
    assert {(call.verb, call.verdict, call.code) for call in refused} >= {
        ("delete", "denied", 403),
        ("create", "denied", 403),
    }
    nobody = [record.load_call(answer.headers["audit-id"]).call for answer in answers]
    borrowed = [story.call for story in finished(record, Filters(verdict="refused")) if story.call.code == 400]
    assert borrowed
    assert not seen_ids(cluster).keys() & {call.audit_id for call in (*refused, *nobody, *borrowed)}
    assert admin("get", "namespace", f"kept-{user}", "-o", "jsonpath={.status.phase}").stdout == "Active"


# -- what is recorded --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["built", *find_versions()])
def test_a_command_run_in_a_pod_and_how_it_ended_are_recorded(
    version: str, kubectls: list[tuple[str, Path]], kubectl: Kubectl, user: str, record: AuditStore
) -> None:
    path = dict(kubectls)[version]
    command = ("sh", "-c", "cat; echo 'a b' >&2; exit 7")
    runner = Kubectl(path, kubectl.kubeconfig, NAMESPACE, kubectl.folder)
    assert runner.run("exec", "-i", "shell", "--", *command, stdin=b"typed").returncode == 7
    (story,) = finished(record, Filters(user=user, resource="pods/exec"))
    told = latest(story)
    assert told.exec is not None
    assert told.exec.command == command
    assert told.exec.exit_code == 7
    assert told.what is not None
    # SPDY is asked for with POST, a WebSocket with GET; kubectl 1.30 was the first to begin with the latter.
    assert told.what.method == ("POST" if version in {"1.27", "1.29"} else "GET")
    assert (story.call.verb, story.call.code, story.call.verdict) == ("create", 101, "allowed")


def test_the_events_of_a_watch_are_recorded_masked(
    kubectl: Kubectl, user: str, admin: Admin, record: AuditStore
) -> None:
    with kubectl.started("get", "secret", "db", "--watch", "-o", "jsonpath={.data}{'\\n'}") as watch:
        assert watch.stdout is not None
        first = watch.stdout.readline()
        admin("patch", "secret", "db", "-n", NAMESPACE, "-p", '{"stringData":{"more":"also-secret"}}')
        second = watch.stdout.readline()
    (story,) = finished(record, Filters(user=user, verb="watch"))
    events = [json.loads(line) for line in response_body(story).content.splitlines()]
    assert events[-1]["type"] == "MODIFIED"
    assert [sorted(json.loads(line)) for line in (first, second)] == [["password"], ["more", "password"]]
    values = [*json.loads(first).values(), *json.loads(second).values(), *events[-1]["object"]["data"].values()]
    assert all(base64.b64decode(value).startswith(b"masked:v1:secret-values:") for value in values)
    assert story.call.code == 200


@pytest.mark.parametrize("follow", [(), ("--follow",)], ids=["read", "followed"])
def test_the_text_of_a_log_is_recorded_masked(
    follow: tuple[str, ...], kubectl: Kubectl, user: str, record: AuditStore
) -> None:
    with kubectl.started("logs", "talks", *follow) as logs:
        assert logs.stdout is not None
        shown = [logs.stdout.readline() for _ in range(3)]
    (story,) = finished(record, Filters(user=user, resource="pods/log"))
    told = response_body(story).content.decode().splitlines(keepends=True)
    for lines in (shown, told):
        assert lines[0] == "begin\n"
        assert lines[1].startswith("masked:v1:secrets-in-logs:")
        assert lines[2] == "end\n"


# -- what is nowhere ---------------------------------------------------------------------------------------------


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file under `folder`, by its name."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield str(file.relative_to(folder)), file.read_bytes()


def spellings(value: str) -> list[bytes]:
    """`value` as it is, and what all base64 of text that holds it has in common, at each of the three offsets."""
    encoded = (base64.b64encode(bytes(offset) + value.encode())[-(-offset * 8 // 6) : -4] for offset in range(3))
    return [value.encode(), *encoded]


def test_a_secret_s_value_is_in_the_cluster_and_in_no_file_of_the_gateway(
    gateway: RunningGateway, cluster: Cluster, kubectl: Kubectl, admin: Admin, user: str, record: AuditStore
) -> None:
    written = f"written-{user}"
    lead = Kubectl(kubectl.path, gateway.kubeconfig(f"lead-{user}", "platform"), NAMESPACE, kubectl.folder)
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": user}, "stringData": {"password": written}}
    lead.ok("apply", "-f", "-", stdin=json.dumps(manifest))
    lead.ok("patch", "secret", user, "--type=json", "-p", add_operation("again", written))
    lead.ok("get", "secret", user, "-o", "yaml")
    kubectl.ok("get", "secrets", "-o", "json")
    kubectl.fails("apply", "-f", "-", stdin=json.dumps({**manifest, "metadata": {"name": "refused"}}))
    kubectl.ok("logs", "talks")
    flows = gateway.folder / "export.flows"
    assert gateway.holdfast("audit", "export", "--flows", str(flows)).returncode == 0
    finished(record, Filters())
    stored = admin("get", "secret", user, "-n", NAMESPACE, "-o", "go-template={{.data.again | base64decode}}").stdout
    assert stored == written
    kept = dict(contents(gateway.folder)) | read_stored(gateway.database)
    assert any(b'"kind":"SecretList"' in content for place, content in kept.items() if " blob " in place)
    assert {"state/audit.db", "state/audit.db-wal", "export.flows"} <= kept.keys()
    for value in (PASSWORD, written, LOGGED):
        for spelling in spellings(value):
            assert [name for name, content in kept.items() if spelling in content] == []
            assert spelling not in "".join(gateway.output).encode()
    assert any(written.encode() in content for _, content in contents(cluster.folder / "etcd"))


def add_operation(key: str, value: str) -> str:
    encoded = base64.b64encode(value.encode()).decode()
    return json.dumps([{"op": "add", "path": f"/data/{key}", "value": encoded}])


def test_no_token_is_in_any_file_of_the_gateway_s_state_or_in_its_output(
    gateway: RunningGateway, kubectl: Kubectl, user: str, record: AuditStore
) -> None:
    token = json.loads(kubectl.kubeconfig.read_text())["users"][0]["user"]["token"]
    kubectl.ok("get", "pods")
    kubectl.ok("exec", "shell", "--", "true")
    kubectl.fails("get", "pods", "--as=system:admin")
    misplaced = ask(gateway, f"/api/v1/pods?token={token}", Cookie=f"session={token}")
    assert misplaced.status_code == 400
    assert finished(record, Filters(user=user))
    kept = dict(contents(gateway.folder / "state")) | read_stored(gateway.database)
    assert kept
    for secret in (token, gateway.upstream.token):
        signature = secret.rpartition(".")[2]
        for spelling in (signature.encode(), base64.b64encode(secret.encode())):
            assert [name for name, content in kept.items() if spelling in content] == []
            assert spelling not in "".join(gateway.output).encode()


# -- holds -------------------------------------------------------------------------------------------------------


def decide(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`holdfast approvals ...` as alice of `platform`, in a process of its own."""
    return gateway.holdfast("approvals", *arguments, token=gateway.token("alice", "platform"))


def phase(admin: Admin, name: str) -> str:
    return admin("get", "namespace", name, "--ignore-not-found", "-o", "jsonpath={.status.phase}").stdout


def deletions(cluster: Cluster, name: str) -> list[str]:
    """The Audit-IDs of what arrived to delete the namespace."""
    wanted = f"/api/v1/namespaces/{name}"
    return [
        event["auditID"] for event in arrivals(cluster) if (event["verb"], event["requestURI"]) == ("delete", wanted)
    ]


def test_an_approval_releases_the_call_it_is_for_and_no_other(
    gateway: RunningGateway, cluster: Cluster, kubectl: Kubectl, admin: Admin, user: str, record: AuditStore
) -> None:
    names = [f"one-{user}", f"other-{user}"]
    for name in names:
        admin("create", "namespace", name)
    one, other = names
    delete = ("delete", "namespace", "--wait=false")
    with kubectl.started(*delete, one) as approved, kubectl.started(*delete, other) as waiting:
        first, second = held(record, user, one), held(record, user, other)
        assert deletions(cluster, one) == []
        done = decide(gateway, "approve", first.hold_id, "--reason", "it is unused")
        assert done.returncode == 0, done.stderr
        assert f'"{one}" deleted' in approved.communicate()[0]
        assert approved.returncode == 0
        kubectl.ok("get", "pods")
        assert waiting.poll() is None
        assert (phase(admin, other), deletions(cluster, other)) == ("Active", [])
        decide(gateway, "deny", second.hold_id, "--reason", "it is in use")
        assert "it is in use" in waiting.communicate()[0]
    assert deletions(cluster, one) == [first.audit_id]
    assert deletions(cluster, other) == []
    again = decide(gateway, "approve", first.hold_id)
    assert again.returncode == 1
    story = record.load_call(first.audit_id)
    assert (story.call.verdict, story.call.code) == ("approved", 200)
    assert [str(told.kind) for told in story.records] == ["hold", "decision", "intent", "outcome"]
    told = latest(story).hold
    assert told is not None
    assert (told.decided_by, told.decision_reason) == ("alice", "it is unused")


def test_ctrl_c_cancels_the_hold_and_no_late_approval_brings_it_back(
    gateway: RunningGateway, cluster: Cluster, kubectl: Kubectl, admin: Admin, user: str, record: AuditStore
) -> None:
    name = f"given-up-{user}"
    admin("create", "namespace", name)
    with kubectl.started("delete", "namespace", name, "--wait=false") as call:
        hold = held(record, user, name)
        call.send_signal(signal.SIGINT)
        call.wait()
        deadline = time.monotonic() + NOTICED_SECONDS
    while record.load_call(hold.audit_id).call.verdict != "cancelled":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    late = decide(gateway, "approve", hold.hold_id)
    assert late.returncode == 1
    assert "was given up (the caller left)" in late.stderr
    kubectl.ok("get", "pods")
    assert deletions(cluster, name) == []
    assert phase(admin, name) == "Active"
    assert latest(record.load_call(hold.audit_id)).refusal is not None

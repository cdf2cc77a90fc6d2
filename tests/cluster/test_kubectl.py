"""No surprise for kubectl: every version of it does through the gateway what it does without one."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import termios
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from kubectl import Kubectl, find_versions

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from running import RunningGateway

    Admin = Callable[..., subprocess.CompletedProcess[str]]

MEGABYTE = 1 << 20
PASSWORD = "correct-horse-battery"
BINARY = hashlib.shake_256(b"all bytes, and no pattern").digest(3 * MEGABYTE)


@pytest.fixture(scope="module", params=["built", *find_versions()])
def kubectl(
    request: pytest.FixtureRequest,
    admin: Admin,
    kubectls: list[tuple[str, Path]],
    gateway: RunningGateway,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Kubectl]:
    """One version, as somebody of `agents` and `platform`, in a namespace that has the pod `shell`."""
    version: str = request.param
    namespace = f"demo-kubectl-{version.replace('.', '-')}"
    admin("create", "namespace", namespace)
    admin("run", "shell", "-n", namespace, "--image=none")
    admin("wait", "-n", namespace, "--for=condition=Ready", "pod/shell", "--timeout=30s")
    kubeconfig = gateway.kubeconfig(f"kubectl-{version}", "agents", "platform")
    yield Kubectl(dict(kubectls)[version], kubeconfig, namespace, tmp_path_factory.mktemp("kubectl"))
    admin("delete", "namespace", namespace, "--wait=false")


def config_map(name: str, **data: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})


def data_of(kubectl: Kubectl, name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(kubectl.ok("get", "configmap", name, "-o", "json"))["data"]
    return found


# -- what is there -----------------------------------------------------------------------------------------------


def test_discovery_names_every_resource_and_explains_it(kubectl: Kubectl) -> None:
    resources = kubectl.ok("api-resources", "-o", "name").splitlines()
    assert {"pods", "deployments.apps", "roles.rbac.authorization.k8s.io"} <= set(resources)
    assert "restartPolicy" in kubectl.ok("explain", "pod.spec")
    assert "gitVersion" in kubectl.ok("version", "-o", "json")
    assert kubectl.ok("auth", "can-i", "list", "pods") == "yes\n"


def test_objects_are_read_in_every_form(kubectl: Kubectl) -> None:
    assert kubectl.ok("get", "pods").splitlines()[1].split()[:3] == ["shell", "1/1", "Running"]
    assert "node" in kubectl.ok("get", "pod", "shell", "-o", "wide").lower()
    listed = json.loads(kubectl.ok("get", "pods", "-o", "json"))
    assert [item["metadata"]["name"] for item in listed["items"]] == ["shell"]
    assert "kind: Pod" in kubectl.ok("get", "pod", "shell", "-o", "yaml")
    assert kubectl.ok("get", "pods,configmaps", "-o", "name").split() == ["pod/shell", "configmap/kube-root-ca.crt"]
    described = kubectl.ok("describe", "pod", "shell")
    assert f"Namespace:        {kubectl.namespace}" in described
    assert 'pods "absent" not found' in kubectl.fails("get", "pod", "absent")


# -- what changes ------------------------------------------------------------------------------------------------


def test_create_diff_and_apply_merge_three_ways(kubectl: Kubectl) -> None:
    kubectl.ok("apply", "-f", "-", stdin=config_map("applied", kept="1", changed="1", dropped="1"))
    kubectl.ok("patch", "configmap", "applied", "--type=merge", "-p", '{"data":{"elsewhere":"1"}}')
    wanted = config_map("applied", kept="1", changed="2")
    shown = kubectl.run("diff", "-f", "-", stdin=wanted.encode())
    assert (shown.returncode, b'+  changed: "2"' in shown.stdout) == (1, True), shown.stderr
    assert kubectl.ok("apply", "-f", "-", stdin=wanted) == "configmap/applied configured\n"
    assert data_of(kubectl, "applied") == {"kept": "1", "changed": "2", "elsewhere": "1"}
    assert kubectl.ok("apply", "-f", "-", stdin=wanted) == "configmap/applied unchanged\n"
    assert kubectl.run("diff", "-f", "-", stdin=wanted.encode()).returncode == 0


def test_server_side_apply_keeps_the_fields_of_others(kubectl: Kubectl) -> None:
    apply = ["apply", "--server-side", "-f", "-"]
    kubectl.ok(*apply, "--field-manager=one", stdin=config_map("shared", first="1"))
    kubectl.ok(*apply, "--field-manager=two", stdin=config_map("shared", second="1"))
    assert data_of(kubectl, "shared") == {"first": "1", "second": "1"}
    conflict = kubectl.fails(*apply, "--field-manager=two", stdin=config_map("shared", first="2"))
    assert 'conflict with "one"' in conflict


def test_create_edit_patch_and_delete_change_what_they_say(kubectl: Kubectl) -> None:
    kubectl.ok("create", "configmap", "written", "--from-literal=key=one")
    assert '"written" already exists' in kubectl.fails("create", "configmap", "written")
    kubectl.ok("edit", "configmap", "written", KUBE_EDITOR="sed -i s/one/two/")
    assert data_of(kubectl, "written") == {"key": "two"}
    for kind, patch in {
        "json": '[{"op":"replace","path":"/data/key","value":"three"}]',
        "merge": '{"data":{"merged":"1"}}',
        "strategic": '{"data":{"key":null}}',
    }.items():
        kubectl.ok("patch", "configmap", "written", f"--type={kind}", "-p", patch)
    assert data_of(kubectl, "written") == {"merged": "1"}
    kubectl.ok("label", "configmap", "written", "seen=yes")
    kubectl.ok("delete", "configmap", "-l", "seen=yes")
    assert "NotFound" in kubectl.fails("get", "configmap", "written")


def test_a_deployment_rolls_out_restarts_and_scales(kubectl: Kubectl) -> None:
    kubectl.ok("create", "deployment", "web", "--image=none")
    assert "successfully rolled out" in kubectl.ok("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl.ok("rollout", "restart", "deployment/web")
    kubectl.ok("rollout", "status", "deployment/web", "--timeout=60s")
    assert len(kubectl.ok("rollout", "history", "deployment/web").split("REVISION")[1].strip().splitlines()) == 3
    kubectl.ok("scale", "deployment/web", "--replicas=0")
    kubectl.ok("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=60s")
    kubectl.ok("delete", "deployment", "web")


# -- what goes on ------------------------------------------------------------------------------------------------


def test_a_watch_shows_each_change_as_it_comes(kubectl: Kubectl) -> None:
    kubectl.ok("create", "configmap", "seen", "--from-literal=step=1")
    columns = "custom-columns=STEP:.data.step"
    with kubectl.started("get", "configmap", "seen", "--watch", "--no-headers", "-o", columns) as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "1\n"
        for step in ("2", "3"):
            kubectl.ok("patch", "configmap", "seen", "--type=merge", "-p", f'{{"data":{{"step":"{step}"}}}}')
            assert watch.stdout.readline() == f"{step}\n"


def test_wait_ends_when_what_it_waits_for_is_so(kubectl: Kubectl) -> None:
    kubectl.ok("wait", "--for=condition=Ready", "pod/shell", "--timeout=20s")
    kubectl.ok("create", "configmap", "awaited", "--from-literal=state=no")
    with kubectl.started("wait", "--for=jsonpath={.data.state}=yes", "configmap/awaited", "--timeout=20s") as wait:
        kubectl.ok("patch", "configmap", "awaited", "--type=merge", "-p", '{"data":{"state":"yes"}}')
        assert wait.communicate()[0] == "configmap/awaited condition met\n"
    assert "timed out" in kubectl.fails("wait", "--for=delete", "configmap/awaited", "--timeout=1s")


def test_logs_are_read_and_followed_to_their_end(kubectl: Kubectl) -> None:
    assert kubectl.ok("logs", "shell").splitlines()[:2] == ["line 1 of shell", "line 2 of shell"]
    assert len(kubectl.ok("logs", "shell", "--tail=3").splitlines()) == 3
    script = "echo first; sleep 1; echo second; printf last"
    kubectl.ok("run", "talks", "--image=none", "--restart=Never", "--", "sh", "-c", script)
    kubectl.ok("wait", "--for=jsonpath={.status.phase}=Running", "pod/talks", "--timeout=30s")
    assert kubectl.ok("logs", "-f", "talks") == "first\nsecond\nlast\n"


# -- what runs inside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7])
def test_exec_carries_both_outputs_and_the_exit_code(kubectl: Kubectl, code: int) -> None:
    script = f"cat; echo to stderr >&2; exit {code}"
    done = kubectl.run("exec", "-i", "shell", "--", "sh", "-c", script, stdin=b"typed\n")
    assert (done.returncode, done.stdout) == (code, b"typed\n")
    assert done.stderr.startswith(b"to stderr\n")


def test_exec_carries_three_megabytes_of_any_bytes_each_way(kubectl: Kubectl) -> None:
    digest = kubectl.run("exec", "-i", "shell", "--", "sha256sum", stdin=BINARY)
    assert digest.stdout.split()[0].decode() == hashlib.sha256(BINARY).hexdigest(), digest.stderr
    assert kubectl.run("exec", "-i", "shell", "--", "cat", stdin=BINARY).stdout == BINARY


def test_cp_carries_a_file_there_and_back(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(BINARY[:MEGABYTE])
    kubectl.ok("cp", str(tmp_path / "there"), "shell:carried")
    kubectl.ok("cp", "shell:carried", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == BINARY[:MEGABYTE]


def test_attach_reaches_the_container_s_own_command(kubectl: Kubectl) -> None:
    script = "read word; echo heard $word"
    run = ["run", "echo", "-i", "--quiet", "--image=none", "--restart=Never", "--rm"]
    assert "heard me" in kubectl.ok(*run, "--", "sh", "-c", script, stdin="me\n")


def test_a_terminal_of_the_client_s_size_is_in_the_pod(kubectl: Kubectl) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (33, 101))
    script = "sleep 1; stty size; read word; echo heard $word; exit 5"
    with kubectl.started("exec", "-it", "shell", "--", "sh", "-c", script, terminal=theirs) as session:
        os.close(theirs)
        os.write(ours, b"me\n")
        shown = read_terminal(ours)
        assert session.wait() == 5
    assert "33 101" in shown
    assert "heard me" in shown


def read_terminal(descriptor: int) -> str:
    """Read until the other end is closed, which Linux reports as an error."""
    shown = b""
    with os.fdopen(descriptor, "rb", buffering=0) as terminal, suppress(OSError):
        while data := terminal.read(4096):
            shown += data
    return shown.decode()


def test_an_ephemeral_container_runs_beside_the_others(kubectl: Kubectl) -> None:
    kubectl.ok("debug", "shell", "--image=none", "-c", "beside", "--", "echo", "from beside")
    # By its place, because kubectl 1.27 reads no `==` here.
    ended = "{.status.ephemeralContainerStatuses[0].state.terminated.reason}=Completed"
    kubectl.ok("wait", f"--for=jsonpath={ended}", "pod/shell", "--timeout=30s")
    assert kubectl.ok("logs", "shell", "-c", "beside") == "from beside\n"


def test_port_forward_carries_data_both_ways_on_several_connections(kubectl: Kubectl, echo_port: int) -> None:
    line = b"to and fro " * 20_000 + b"\n"
    with kubectl.started("port-forward", "pod/shell", f":{echo_port}") as forward:
        assert forward.stdout is not None
        host, _, port = forward.stdout.readline().removeprefix("Forwarding from ").split()[0].partition(":")
        with ExitStack() as open_connections:
            for _ in range(3):
                connection = open_connections.enter_context(socket.create_connection((host, int(port)), timeout=20))
                stream = open_connections.enter_context(connection.makefile("rwb"))
                for _ in range(2):
                    stream.write(line)
                    stream.flush()
                    assert stream.readline() == line.upper()


# -- what is refused ---------------------------------------------------------------------------------------------


def test_another_person_s_name_is_refused(kubectl: Kubectl) -> None:
    refused = kubectl.fails("get", "pods", "--as=system:admin")
    assert "(BadRequest)" in refused
    assert "who asks is taken from the token only; leave out --as" in refused


def test_what_policy_denies_is_forbidden_by_the_rule_s_name(kubectl: Kubectl) -> None:
    refused = kubectl.fails("create", "rolebinding", "mine", "--clusterrole=admin", "--user=me")
    assert 'rolebindings.rbac.authorization.k8s.io is forbidden: User "kubectl-' in refused
    assert 'rule "deny-rbac-writes"' in refused


def test_a_secret_is_written_shown_masked_and_its_mask_never_written_back(kubectl: Kubectl, admin: Admin) -> None:
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": PASSWORD}}
    kubectl.ok("apply", "-f", "-", stdin=json.dumps(manifest))
    shown = kubectl.ok("get", "secret", "db", "-o", "yaml")
    assert PASSWORD not in shown
    masked = kubectl.ok("get", "secret", "db", "-o", "go-template={{.data.password | base64decode}}")
    assert masked.startswith("masked:v1:secret-values:")
    assert PASSWORD not in kubectl.ok("describe", "secret", "db")
    for write in ("apply", "replace"):
        refused = kubectl.fails(write, "-f", "-", stdin=shown)
        assert refused.startswith('The secrets "db" is invalid: ')
        assert "holds a mask (masked:v1:...)" in refused
    assert password_of(admin, kubectl.namespace, "db") == PASSWORD


def test_a_secret_that_was_applied_is_applied_again_though_its_last_state_is_masked(
    kubectl: Kubectl, admin: Admin
) -> None:
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "twice"}}
    kubectl.ok("apply", "-f", "-", stdin=json.dumps({**manifest, "stringData": {"password": "old"}}))
    wanted = json.dumps({**manifest, "stringData": {"password": PASSWORD}})
    assert kubectl.ok("apply", "-f", "-", stdin=wanted) == "secret/twice configured\n"
    assert password_of(admin, kubectl.namespace, "twice") == PASSWORD


def password_of(admin: Admin, namespace: str, secret: str) -> str:
    """The password that the cluster has, as its administrator sees it."""
    return admin("get", "secret", secret, "-n", namespace, "-o", "go-template={{.data.password | base64decode}}").stdout

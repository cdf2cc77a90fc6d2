"""No surprise for client libraries: the Python client (package `kubernetes`) works through the gateway."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client, dynamic, stream, watch

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from running import RunningGateway

    Admin = Callable[..., subprocess.CompletedProcess[str]]

NAMESPACE = "demo-python"
PASSWORD = "correct-horse-battery"
TIMEOUT_SECONDS = 30


@pytest.fixture(scope="module")
def namespace(admin: Admin) -> Iterator[str]:
    """A namespace with the pod `shell` and the Secret `db`."""
    admin("create", "namespace", NAMESPACE)
    admin("run", "shell", "-n", NAMESPACE, "--image=none")
    admin("create", "secret", "generic", "db", "-n", NAMESPACE, f"--from-literal=password={PASSWORD}")
    admin("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/shell", "--timeout=30s")
    yield NAMESPACE
    admin("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def api(gateway: RunningGateway, namespace: str) -> Iterator[client.ApiClient]:
    """A client of its own for every test; `stream.stream` changes the one that it is given."""
    configuration = client.Configuration(host=gateway.url)
    configuration.ssl_ca_cert = str(gateway.ca_file)
    configuration.api_key["authorization"] = f"Bearer {gateway.token('python', 'agents')}"
    with client.ApiClient(configuration) as opened:
        yield opened


@pytest.fixture
def core(api: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(api)


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_it_discovers_the_version_and_the_groups(api: client.ApiClient) -> None:
    assert client.VersionApi(api).get_code().major == "1"
    assert "v1" in client.CoreApi(api).get_api_versions().versions
    assert "apps" in {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert "deployments" in {resource.name for resource in client.AppsV1Api(api).get_api_resources().resources}


def test_objects_are_created_read_listed_patched_replaced_and_deleted(core: client.CoreV1Api) -> None:
    core.create_namespaced_config_map(NAMESPACE, config_map("written", key="one"))
    found = core.read_namespaced_config_map("written", NAMESPACE)
    assert found.data == {"key": "one"}
    found.data["key"] = "two"
    assert core.replace_namespaced_config_map("written", NAMESPACE, found).data == {"key": "two"}
    patched = core.patch_namespaced_config_map("written", NAMESPACE, {"data": {"more": "1"}})
    assert patched.data == {"key": "two", "more": "1"}
    listed = core.list_namespaced_config_map(NAMESPACE, limit=500)
    assert "written" in {item.metadata.name for item in listed.items}
    core.delete_namespaced_config_map("written", NAMESPACE)
    with pytest.raises(client.ApiException, match='configmaps \\\\"written\\\\" not found'):
        core.read_namespaced_config_map("written", NAMESPACE)


def test_a_long_list_comes_page_by_page(core: client.CoreV1Api) -> None:
    first = core.list_namespaced_config_map("kube-system", limit=1)
    second = core.list_namespaced_config_map("kube-system", limit=1, _continue=first.metadata._continue)
    assert first.items[0].metadata.name != second.items[0].metadata.name


def test_a_watch_streams_each_change_as_it_comes(core: client.CoreV1Api) -> None:
    core.create_namespaced_config_map(NAMESPACE, config_map("seen", step="1"))
    watching = watch.Watch()
    selector = "metadata.name=seen"
    seen = []
    for event in watching.stream(
        core.list_namespaced_config_map, NAMESPACE, field_selector=selector, timeout_seconds=TIMEOUT_SECONDS
    ):
        step = event["object"].data["step"]
        seen.append((event["type"], step))
        if event["type"] == "DELETED":
            watching.stop()
        elif step == "1":
            core.patch_namespaced_config_map("seen", NAMESPACE, {"data": {"step": "2"}})
        else:
            core.delete_namespaced_config_map("seen", NAMESPACE)
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]


def test_logs_are_read_and_followed(core: client.CoreV1Api) -> None:
    # With its content loaded, this client gives a log as the repr of bytes, through a gateway or not.
    read = core.read_namespaced_pod_log("shell", NAMESPACE, tail_lines=2, _preload_content=False)
    assert read.data.count(b" of shell\n") == 2
    followed = core.read_namespaced_pod_log("shell", NAMESPACE, follow=True, _preload_content=False)
    assert next(followed.stream()).startswith(b"line 1 of shell\n")
    followed.close()


def test_exec_over_websocket_carries_input_outputs_and_the_exit_code(core: client.CoreV1Api) -> None:
    session = stream.stream(
        core.connect_get_namespaced_pod_exec,
        "shell",
        NAMESPACE,
        command=["sh", "-c", "read word; echo heard $word; echo aside >&2; exit 7"],
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        _preload_content=False,
    )
    session.write_stdin("me\n")
    session.run_forever(timeout=TIMEOUT_SECONDS)
    assert (session.read_stdout(), session.read_stderr(), session.returncode) == ("heard me\n", "aside\n", 7)


def test_port_forward_over_websocket_carries_data(core: client.CoreV1Api, echo_port: int) -> None:
    forward = stream.portforward(core.connect_get_namespaced_pod_portforward, "shell", NAMESPACE, ports=str(echo_port))
    connection = forward.socket(echo_port)
    connection.settimeout(TIMEOUT_SECONDS)
    connection.sendall(b"to and fro\n")
    assert connection.recv(100) == b"TO AND FRO\n"
    forward.close()


def test_the_dynamic_client_applies_and_reads_what_it_discovers(api: client.ApiClient, tmp_path: Path) -> None:
    resources = dynamic.DynamicClient(api, cache_file=str(tmp_path / "discovery")).resources
    config_maps = resources.get(api_version="v1", kind="ConfigMap")
    config_maps.server_side_apply(config_map("applied", key="1"), namespace=NAMESPACE, field_manager="test")
    assert config_maps.get("applied", NAMESPACE).data.key == "1"
    assert resources.get(api_version="apps/v1", kind="Deployment").get(namespace=NAMESPACE).items == []


def test_a_refusal_is_an_api_exception_with_a_status(core: client.CoreV1Api, gateway: RunningGateway) -> None:
    with pytest.raises(client.ApiException) as denied:
        core.delete_namespaced_pod("etcd", "kube-system")
    assert denied.value.status == 403
    assert '"kind":"Status"' in denied.value.body
    core.api_client.configuration.api_key["authorization"] = "Bearer nonsense"
    with pytest.raises(client.ApiException) as nobody:
        core.list_namespaced_pod(NAMESPACE)
    assert nobody.value.status == 401
    assert nobody.value.reason == "Unauthorized"


def test_a_secret_is_masked(core: client.CoreV1Api) -> None:
    data = core.read_namespaced_secret("db", NAMESPACE).data
    assert base64.b64decode(data["password"]).startswith(b"masked:v1:secret-values:")

"""`holdfast kubeconfig`: judged by the Kubernetes Python client, which must load what is written."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from ruamel.yaml import YAML
from typer.testing import CliRunner

from console.world import GATEWAY, World, make_world, trust_saml
from holdfast.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def run(world: World, *arguments: str) -> Result:
    common = ["--config", str(world.folder / "holdfast.yaml"), "--user-name", "agent"]
    token = ["--token-file", str(world.token_file("agent"))]
    return runner.invoke(app, ["kubeconfig", *common, *token, *arguments])


def test_the_gateways_ca_and_a_reference_to_the_token_are_in_it(world: World) -> None:
    document: dict[str, Any] = YAML(typ="safe").load(run(world).stdout)
    cluster = document["clusters"][0]["cluster"]
    assert cluster.keys() == {"server", "certificate-authority-data"}
    assert cluster["server"] == "https://127.0.0.1:8443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == (world.folder / "ca.crt").read_bytes()
    assert document["users"] == [{"name": "agent", "user": {"tokenFile": str(world.folder / "agent.token")}}]


def test_the_token_itself_is_in_it_only_when_asked_for(world: World) -> None:
    token = world.token_file("agent").read_text()
    assert token not in run(world).stdout
    document = YAML(typ="safe").load(run(world, "--embed-token").stdout)
    assert document["users"][0]["user"]["token"].count(".") == 2


def test_a_token_s_file_may_be_on_the_callers_machine_only(world: World) -> None:
    file = "/var/run/secrets/tokens/holdfast"
    result = run(world, "--token-file", file)
    assert result.exit_code == 0, result.stderr
    assert YAML(typ="safe").load(result.stdout)["users"][0]["user"] == {"tokenFile": file}
    assert result.stderr == f"{file} cannot be read here; it must be there where kubectl runs.\n"
    assert run(world, "--token-file", file, "--embed-token").exit_code == 2


def test_a_token_s_file_that_is_here_must_hold_one(world: World) -> None:
    file = world.folder / "wrong.token"
    file.write_text("two words")
    result = run(world, "--token-file", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "expected one bearer token on one line" in result.stderr


def test_a_client_library_reads_the_file(world: World) -> None:
    file = world.folder / "agent.kubeconfig"
    assert run(world, "-f", str(file), "--server", "https://gateway.example:443").exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    configuration = kubernetes_client.Configuration()
    kubernetes_config.load_kube_config(str(file), client_configuration=configuration)
    assert configuration.host == "https://gateway.example:443"
    assert configuration.verify_ssl


def test_a_folder_that_is_missing_is_named(world: World) -> None:
    result = run(world, "-f", str(world.folder / "nosuch" / "config"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"holdfast: {world.folder / 'nosuch'}: No such file or directory.\n"


def test_a_file_that_exists_is_replaced_only_when_forced(world: World) -> None:
    file = world.folder / "config"
    file.write_text("precious")
    assert run(world, "-f", str(file)).exit_code == 2
    assert file.read_text() == "precious"
    assert run(world, "-f", str(file), "--force").exit_code == 0
    assert "precious" not in file.read_text()


@pytest.mark.parametrize("server", ["http://gateway:8443", "gateway:8443", "https://gateway/path", "https://"])
def test_a_server_that_is_not_https_is_refused(world: World, server: str) -> None:
    result = run(world, "--server", server)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_free_port_is_not_guessed(world: World) -> None:
    settings = world.folder / "holdfast.yaml"
    settings.write_text(settings.read_text().replace("listen: {", "listen: {port: 0, "))
    assert run(world).exit_code == 2
    assert run(world, "--server", "https://127.0.0.1:9443").exit_code == 0


def log_in(world: World, *arguments: str) -> Result:
    common = ["--config", str(world.folder / "holdfast.yaml"), "--user-name", "me", "--login"]
    return runner.invoke(app, ["kubeconfig", *common, *arguments])


def plugin_arguments(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return list(YAML(typ="safe").load(result.stdout)["users"][0]["user"]["exec"]["args"])


def test_people_get_a_plugin_that_logs_them_in(world: World) -> None:
    options = ("--client-id", "holdfast", "--scope", "groups", "--issuer-ca", "/etc/issuer.crt", "--device")
    document: dict[str, Any] = YAML(typ="safe").load(log_in(world, *options).stdout)
    plugin = document["users"][0]["user"]["exec"]
    assert plugin.pop("installHint").startswith("The command `holdfast` gets your token.")
    assert plugin == {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "holdfast",
        "args": [
            "get-token",
            "--issuer=https://issuer.test",
            "--client-id=holdfast",
            "--scope=groups",
            "--issuer-ca=/etc/issuer.crt",
            "--device",
        ],
        "interactiveMode": "IfAvailable",
        "provideClusterInfo": False,
    }
    assert document["clusters"][0]["cluster"].keys() == {"server", "certificate-authority-data"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "--client-id: is missing; a login is at an --issuer and for a --client-id."),
        (["--client-id", "holdfast", "--embed-token"], "--embed-token: goes with --token-file;"),
        (["--client-id", "holdfast", "--scope", "groups,email"], "--scope: found 'groups,email'; give each scope by"),
        (["--client-id", "holdfast", "--scope", ""], "--scope: found ''; give each scope by itself"),
        (["--client-id", "holdfast", "--audience", "holdfast"], "--audience: says whom access tokens are for; add"),
        (
            ["--client-id", "other"],
            "--client-id: the gateway takes tokens for holdfast, found 'other'; add it to that issuer's audiences",
        ),
        (["--client-id", "holdfast", "--issuer", "https://other.test"], "does not trust https://other.test"),
        (["--client-id", "kubectl", "--token-type", "access"], "--audience: the gateway takes tokens for holdfast"),
        (["--client-id", "holdfast", "--token-file", "agent.token"], "one of them"),
    ],
)
def test_a_kubeconfig_whose_tokens_would_be_refused_is_not_written(world: World, options: list[str], why: str) -> None:
    result = log_in(world, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


@pytest.mark.parametrize(
    "option",
    [
        ["--issuer", "https://issuer.test"],
        ["--client-id", "holdfast"],
        ["--scope", "groups"],
        ["--audience", "holdfast"],
        ["--token-type", "access"],
        ["--issuer-ca", "/etc/issuer.crt"],
        ["--device"],
        ["--no-browser"],
        ["--name", "me"],
        ["--idp", "https://id.test"],
    ],
)
def test_a_job_logs_nobody_in(world: World, option: list[str]) -> None:
    result = run(world, *option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"holdfast: {option[0]}: goes with --login, not with --token-file; leave it out.\n"


def test_a_token_comes_from_somewhere(world: World) -> None:
    result = runner.invoke(app, ["kubeconfig", "--config", str(world.folder / "holdfast.yaml"), "--user-name", "me"])
    assert (result.exit_code, result.stdout) == (2, "")


def test_of_several_issuers_one_must_be_named(world: World) -> None:
    settings = world.folder / "holdfast.yaml"
    entry = 'issuer: {url: "https://issuer.test", audiences'
    (line,) = [line for line in settings.read_text().splitlines() if entry in line]
    mappings = '    claimMappings: {username: {claim: sub, prefix: ""}}'
    other = f"{line}\n{mappings}\n{line}".replace("issuer.test", "other.test", 1)
    settings.write_text(settings.read_text().replace(line, other))
    assert "give one of https://other.test, https://issuer.test" in log_in(world, "--client-id", "holdfast").stderr
    assert log_in(world, "--client-id", "holdfast", "--issuer", "https://other.test").exit_code == 0


@pytest.fixture
def saml_world(world: World) -> World:
    """One where people log in at a SAML provider, and nowhere else."""
    trust_saml(world, alone=True)
    return world


def test_people_of_a_saml_provider_log_in_at_the_gateway(saml_world: World) -> None:
    result = log_in(saml_world, "--client-id", "holdfast", "--token-type", "access", "--audience", GATEWAY)
    assert set(plugin_arguments(result)) >= {f"--issuer={GATEWAY}", f"--audience={GATEWAY}", "--token-type=access"}


def test_of_several_saml_providers_one_must_be_named(saml_world: World) -> None:
    settings = saml_world.folder / "holdfast.yaml"
    entry = settings.read_text().partition("  saml:\n")[2].partition("policies:")[0]
    other = entry.replace("https://id.test/saml", "https://other.test/saml")
    settings.write_text(settings.read_text().replace(entry, entry + other))
    options = ("--client-id", "holdfast", "--token-type", "access", "--audience", GATEWAY)
    both = "https://id.test/saml, https://other.test/saml"
    assert f"--idp: the gateway has several SAML providers; give one of {both}." in log_in(saml_world, *options).stderr
    result = log_in(saml_world, *options, "--idp", "https://third.test")
    assert f"--idp: found 'https://third.test'; expected one of {both}." in result.stderr
    result = log_in(saml_world, *options, "--idp", "https://other.test/saml")
    assert "--idp=https://other.test/saml" in plugin_arguments(result)


def test_the_issuer_is_trusted_as_the_settings_have_it(world: World) -> None:
    settings = world.folder / "holdfast.yaml"
    settings.write_text(settings.read_text().replace("[holdfast],", "[holdfast], certificateAuthorityFile: ca.crt,"))
    result = log_in(world, "--client-id", "holdfast")
    assert f"--issuer-ca={world.folder / 'ca.crt'}" in plugin_arguments(result)
    assert f"--issuer-ca={world.folder / 'ca.crt'}; it must be there where kubectl runs, too." in result.stderr
    result = log_in(world, "--client-id", "holdfast", "--issuer-ca", "/etc/other.crt")
    assert [text for text in plugin_arguments(result) if "--issuer-ca" in text] == ["--issuer-ca=/etc/other.crt"]
    assert result.stderr == ""


def test_a_ca_that_is_only_text_in_the_settings_has_to_be_given(world: World) -> None:
    settings = world.folder / "holdfast.yaml"
    text = json.dumps((world.folder / "ca.crt").read_text())
    settings.write_text(settings.read_text().replace("[holdfast],", f"[holdfast], certificateAuthority: {text},"))
    result = log_in(world, "--client-id", "holdfast")
    assert not any("--issuer-ca" in text for text in plugin_arguments(result))
    assert "write it to a file, and give that with --issuer-ca, or logins fail." in result.stderr


@pytest.mark.parametrize(
    ("configured", "file"),
    [
        ("listen: {certificate: listener.crt, privateKey: listener.key, certificateAuthority: ca.crt}", "ca.crt"),
        ("listen: {certificate: listener.crt, privateKey: listener.key}", None),
        ("listen: {}", "state/listener/ca.crt"),
    ],
)
def test_the_gateway_is_trusted_by_its_own_ca(saml_world: World, configured: str, file: str | None) -> None:
    settings = saml_world.folder / "holdfast.yaml"
    lines = settings.read_text().splitlines()
    settings.write_text("\n".join(configured if line.startswith("listen:") else line for line in lines))
    result = log_in(saml_world, "--client-id", "holdfast", "--token-type", "access", "--audience", GATEWAY)
    found = [text for text in plugin_arguments(result) if "--issuer-ca" in text]
    assert found == ([] if file is None else [f"--issuer-ca={saml_world.folder / file}"])


def test_an_openid_provider_is_not_asked_for_a_saml_provider(world: World) -> None:
    result = log_in(world, "--client-id", "holdfast", "--idp", "https://id.test/saml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--idp: https://issuer.test is no gateway with SAML providers; leave it out." in result.stderr


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], f"gives access tokens; add --token-type access --audience {GATEWAY}."),
        (["--token-type", "access", "--audience", "other"], f"--audience: the gateway takes tokens for {GATEWAY}"),
        (["--issuer", "https://id.test/saml"], "does not trust https://id.test/saml"),
    ],
)
def test_a_login_at_the_gateway_that_would_fail_is_not_written(saml_world: World, options: list[str], why: str) -> None:
    result = log_in(saml_world, "--client-id", "holdfast", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr

"""`holdfast doctor`: what it finds when one thing after the other is broken."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ruamel.yaml import YAML
from typer.testing import CliRunner

from audit.anchors.authority import TimestampAuthority
from audit.entries import entry
from cli.losing import lose_the_end, write_and_lose
from console.test_console_application import serving
from console.world import World, make_world, trust_saml
from holdfast.audit.anchors.witness import open_witness
from holdfast.audit.keys import EPOCH_KEY_DAYS, ROLES, KeyFolder, open_epoch_key
from holdfast.audit.opening import open_ledger
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.trees import LedgerTrees
from holdfast.certificates import make_authority, write_private
from holdfast.cli import app
from holdfast.cli.checks import check_approvals, check_issuer, check_token_endpoint, judge_rights, judge_skew
from holdfast.credential.rights import Right
from holdfast.database import Database
from holdfast.errors import ConfigurationError
from holdfast.identity.token_keys import TokenKeys
from holdfast.settings import Listen
from holdfast.settings.audit import Witness
from holdfast.settings.identity import IdentitySection, Issuer, OwnTokens
from running import trusted_issuer
from witness.witnessing import cosigned_in, running_witness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.settings import Settings
    from services.identity_provider import IdentityProvider
    from services.s3 import S3Server

WITNESS_KEY = "witness.test+e2fd0001+not-a-key"
runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def diagnose(world: World) -> dict[str, tuple[str, str, str]]:
    """State, finding and advice by the first word of the check's name."""
    result = runner.invoke(app, ["doctor", "-o", "json", "--config", str(world.folder / "holdfast.yaml")])
    checks = json.loads(result.stdout)
    failed = {check["name"] for check in checks if check["state"] == "fail"}
    assert result.exit_code == (2 if "configuration" in failed else int(bool(failed)))
    return {check["name"].split()[0]: (check["state"], check["found"], check["advice"]) for check in checks}


def serve_certificate(world: World, *, made: timedelta, days: int) -> None:
    authority = make_authority("CA", now=datetime.now(UTC) - timedelta(days=400))
    pair = authority.issue("x", hosts=("127.0.0.1",), now=datetime.now(UTC) - made, days=days)
    write_private(world.folder / "listener.crt", pair.certificate_pem)
    write_private(world.folder / "listener.key", pair.key_pem)


def test_what_is_in_order_is_ok_and_an_unreachable_cluster_fails(world: World) -> None:
    world.database.close()
    found = diagnose(world)
    assert {name: state for name, (state, _, _) in found.items()} == {
        "configuration": "ok",
        "certificates": "ok",
        "policies": "ok",
        "store": "ok",
        "keys": "ok",
        "payloads": "ok",
        "anchors": "warn",
        "issuer": "ok",
        "permissions": "ok",
        "upstream": "fail",
        "approvals": "warn",
    }
    assert "cannot be reached" in found["upstream"][1]
    assert all(advice for state, _, advice in found.values() if state != "ok")


def test_the_report_changes_nothing_and_shows_no_credential(world: World) -> None:
    before = sorted(path.name for path in world.folder.rglob("*"))
    result = runner.invoke(app, ["doctor", "--config", str(world.folder / "holdfast.yaml")])
    assert sorted(path.name for path in world.folder.rglob("*")) == before
    assert "gateway-credential" not in result.stdout
    assert "the record can be cut without anybody noticing" in result.stdout
    assert "will be made by `holdfast serve`" in result.stdout


def print_role(world: World, *arguments: str) -> str:
    command = ["doctor", "--rbac", *arguments, "--config", str(world.folder / "holdfast.yaml")]
    result = runner.invoke(app, command)
    assert result.exit_code == 0
    return result.stdout


def test_the_role_for_impersonation_is_printed_for_kubectl_apply(world: World) -> None:
    file = world.folder / "holdfast.yaml"
    file.write_text(file.read_text().replace("tokenFile: gateway.token", "tokenFile: gateway.token, impersonate: true"))
    role, binding = YAML(typ="safe").load_all(print_role(world, "--service-account", "infra:door"))
    assert (role["kind"], binding["kind"]) == ("ClusterRole", "ClusterRoleBinding")
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"impersonate"}
    assert role["rules"][1]["resources"][0] == "userextras/holdfast.dev/issuer"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "door", "namespace": "infra"}]


def test_without_impersonation_the_rights_of_all_callers_are_asked_for_in_words(world: World) -> None:
    printed = print_role(world)
    assert "rights that its callers are to have together" in printed
    assert all(line.startswith("#") for line in printed.splitlines())


@pytest.mark.parametrize("account", ["gateway", "a:b:c", ":gateway", "holdfast:"])
def test_a_service_account_is_given_with_its_namespace(world: World, account: str) -> None:
    command = ["doctor", "--rbac", "--service-account", account, "--config", str(world.folder / "holdfast.yaml")]
    result = runner.invoke(app, command)
    assert result.exit_code == 2
    assert "expected NAMESPACE:NAME" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--rbac", "-o", "json"], "--rbac: prints YAML for `kubectl apply -f -`; leave `-o json` out."),
        (["--service-account", "a:b"], "--service-account: goes with --rbac; "),
    ],
)
def test_options_that_do_not_go_together_are_refused(world: World, arguments: list[str], fault: str) -> None:
    result = runner.invoke(app, ["doctor", *arguments, "--config", str(world.folder / "holdfast.yaml")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert fault in result.stderr


def test_a_bad_settings_file_is_the_only_finding(world: World) -> None:
    (world.folder / "holdfast.yaml").write_text("cluster: 1")
    assert diagnose(world).keys() == {"configuration"}


def test_a_certificate_that_ends_soon_is_a_warning_and_one_that_ended_a_failure(world: World) -> None:
    serve_certificate(world, made=timedelta(days=5), days=10)
    assert diagnose(world)["certificates"][0] == "warn"
    serve_certificate(world, made=timedelta(days=20), days=10)
    assert diagnose(world)["certificates"][0] == "fail"


def test_a_key_of_another_certificate_is_a_failure(world: World) -> None:
    key = (world.folder / "listener.key").read_bytes()
    serve_certificate(world, made=timedelta(days=5), days=90)
    (world.folder / "listener.key").write_bytes(key)
    assert diagnose(world)["certificates"][0] == "fail"


def test_a_policy_that_does_not_load_is_a_failure(world: World) -> None:
    (world.folder / "policy.yaml").write_text("kind: Policy")
    assert diagnose(world)["policies"][0] == "fail"


def test_a_store_that_is_no_database_or_a_newer_one_is_a_failure(world: World) -> None:
    with world.database.writing() as connection:
        connection.exec_driver_sql("UPDATE holdfast_version SET version_num = '9999'")
    world.database.close()
    state, found, _ = diagnose(world)["store"]
    assert (state, "newer Holdfast" in found) == ("fail", True)
    (world.settings.state_dir / "audit.db").write_text("this is a text file, and quite a long one " * 100)
    assert diagnose(world)["store"][0] == "fail"


def test_a_database_that_is_not_there_yet_is_no_failure(world: World) -> None:
    there = world.folder / "audit.sqlite"
    configure(world, database=f"sqlite:///{there}")
    state, found, _ = diagnose(world)["store"]
    assert (state, found.startswith(f"{there} will be made by `holdfast serve`")) == ("ok", True)
    configure(world, database=f"sqlite:///{world.folder / 'disk' / 'audit.db'}")
    assert diagnose(world)["store"] == (
        "warn",
        f"{world.folder / 'disk'} is not there; `holdfast serve` makes it, and the database in it",
        "where it is to be on another disk, mount that first",
    )
    assert not (world.folder / "disk").exists()
    configure(world, database="mysql://somewhere")
    assert diagnose(world)["store"][0] == "fail"


def test_a_database_that_is_there_no_more_is_a_failure(world: World) -> None:
    open_ledger(world.settings, world.database).close()
    world.database.close()
    file = world.settings.state_dir / "audit.db"
    file.unlink()
    state, found, advice = diagnose(world)["store"]
    assert (state, found) == ("fail", f"{file} is not there, though this gateway wrote to it")
    assert "holdfast audit accept --reason" in advice
    with (
        closing(Database.open(world.settings.database_url)) as made_anew,
        pytest.raises(ConfigurationError, match="it lacks the log"),
    ):
        open_ledger(world.settings, made_anew)


def test_a_database_that_was_put_back_is_a_failure_until_it_is_accepted(world: World) -> None:
    write_and_lose(world)
    state, found, advice = diagnose(world)["store"]
    assert (
        state,
        found.startswith("the audit database is not as this gateway left it: the gateway wrote 2 records of holdfast/"),
    ) == ("fail", True)
    assert found.endswith(", the database has 1")
    assert "holdfast audit accept --reason" in advice
    command = ["audit", "accept", "--reason", "restored", "--yes", "--config", str(world.folder / "holdfast.yaml")]
    assert runner.invoke(app, command).exit_code == 0
    assert diagnose(world)["store"][0] == "ok"


def test_what_a_running_gateway_writes_meanwhile_is_no_failure(world: World) -> None:
    ledger = open_ledger(world.settings, world.database)
    before = (world.settings.state_dir / "audit.head").read_bytes()
    ledger.write([entry()])
    assert diagnose(world)["store"][0] == "ok"
    (world.settings.state_dir / "audit.head").write_bytes(before)
    assert diagnose(world)["store"][0] == "ok"
    ledger.close()


def test_a_head_file_that_is_damaged_is_a_failure(world: World) -> None:
    open_ledger(world.settings, world.database).close()
    (world.settings.state_dir / "audit.head").write_text("nonsense")
    state, found, advice = diagnose(world)["store"]
    assert (state, "audit.head: is damaged" in found, "holdfast audit accept" in advice) == ("fail", True, True)


def test_the_database_that_is_read_from_is_tried_too(tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    world = make_world(tmp_path, {"audit": {"readDatabase": f"sqlite:///{copy}"}})
    world.database.close()
    state, found, advice = diagnose(world)["readDatabase"]
    assert (state, str(copy) in found, "audit.readDatabase" in advice) == ("warn", True, True)
    shutil.copy(world.settings.state_dir / "audit.db", copy)
    assert diagnose(world)["readDatabase"][0] == "ok"
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("DROP TABLE calls")
    assert diagnose(world)["readDatabase"][0] == "warn"
    assert diagnose(world)["store"][0] == "ok"


def test_an_issuer_without_keys_is_a_failure(world: World) -> None:
    (world.folder / "jwks.json").write_text('{"keys": []}')
    assert diagnose(world)["issuer"][0] == "fail"


async def test_an_issuer_is_asked_past_any_proxy(
    identity_provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    identity = IdentitySection.model_validate(
        {"jwt": [trusted_issuer(identity_provider.url, certificateAuthorityFile=identity_provider.ca_file)]}
    )
    check = await check_issuer(identity.jwt[0], identity)
    assert (check.state, check.found.endswith(" keys")) == ("ok", True), check.found  # and its clock was told


@pytest.mark.parametrize("date", ["Sat, 01 Jan 2000 00:00:00 +99999999999999", "now"])
async def test_a_clock_that_tells_no_time_is_no_fault_of_ours(
    identity_provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch, date: str
) -> None:
    async def open_client(issuer: Issuer) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, headers={"date": date})))

    monkeypatch.setattr("holdfast.cli.checks.open_client", open_client)
    identity = IdentitySection.model_validate(
        {"jwt": [trusted_issuer(identity_provider.url, certificateAuthorityFile=identity_provider.ca_file)]}
    )
    check = await check_issuer(identity.jwt[0], identity)
    assert check == judge_skew(f"issuer {identity_provider.url}", check.found.partition(";")[0], None)


@pytest.mark.parametrize(
    ("others", "saml", "told"),
    [
        ([], False, "the gateway does not start before, since there is no other"),
        (["https://other.test"], False, "the gateway starts as long as one other issuer answers"),
        ([], True, "the gateway starts without it, for those whom a SAML provider lets in"),
    ],
)
async def test_what_an_issuer_that_is_down_means_is_told(
    world: World, others: list[str], saml: bool, told: str
) -> None:
    trust_saml(world)
    down = IdentitySection.model_validate({"jwt": [trusted_issuer(url) for url in ["https://127.0.0.1:1", *others]]})
    identity = down.model_copy(update={"saml": world.settings.identity.saml if saml else ()})
    check = await check_issuer(identity.jwt[0], identity)
    assert (check.state, check.advice) == ("fail", f"its callers are refused until it answers; {told}")


@pytest.mark.parametrize(("days", "state"), [(90, "ok"), (10, "warn"), (-1, "fail")])
def test_a_saml_provider_s_certificate_ends(world: World, days: int, state: str) -> None:
    trust_saml(world, days=days)
    found = diagnose(world)
    assert found["saml"][0] == state
    assert state == "ok" or "pin the certificate" in found["saml"][2]
    assert found["tokens"] == ("ok", f"{world.settings.token_key_folder} will be made by `holdfast serve`", "")


def test_a_key_of_tokens_that_is_none_is_a_failure(world: World) -> None:
    trust_saml(world)
    keys = TokenKeys(world.settings.token_key_folder)
    keys.prepare(0, 600)
    assert diagnose(world)["tokens"][0] == "ok"
    file = keys.folder / "other.pem"
    write_private(file, b"no key")
    assert diagnose(world)["tokens"] == (
        "fail",
        f"{file}: is no private key in PEM",
        "remove it: the gateway does not start",
    )


def with_tokens_at(world: World, url: str) -> Settings:
    own = OwnTokens(url=url)
    return world.settings.model_copy(update={"identity": world.settings.identity.model_copy(update={"tokens": own})})


async def test_the_token_endpoint_is_asked_for_its_keys(world: World, identity_provider: IdentityProvider) -> None:
    (check,) = await check_token_endpoint(with_tokens_at(world, "https://127.0.0.1:1"))
    assert (check.state, check.found.startswith("does not answer (")) == ("warn", True)
    assert check.advice.startswith("before the gateway runs, that is expected; else ")
    TokenKeys(world.settings.token_key_folder).prepare(0, 600)
    shutil.copy(identity_provider.ca_file, world.folder / "ca.crt")
    url = identity_provider.url.rstrip("/")
    (check,) = await check_token_endpoint(with_tokens_at(world, f"{url}/nowhere"))
    assert (check.state, check.found) == ("warn", "answered 404 when asked for its keys")
    assert check.advice.startswith("start `holdfast serve` again")
    (check,) = await check_token_endpoint(with_tokens_at(world, url))
    assert (check.state, check.found) == ("warn", f"publishes none of the keys in {world.settings.token_key_folder}")


async def test_a_token_endpoint_s_keys_that_cannot_be_read_are_none_of_ours(
    world: World, identity_provider: IdentityProvider
) -> None:
    TokenKeys(world.settings.token_key_folder).prepare(0, 600)
    shutil.copy(identity_provider.ca_file, world.folder / "ca.crt")
    identity_provider.answer_next("/jwks", (200, "[" * 100_000))
    (check,) = await check_token_endpoint(with_tokens_at(world, identity_provider.url.rstrip("/")))
    assert (check.state, check.found) == ("warn", f"publishes none of the keys in {world.settings.token_key_folder}")


async def test_a_token_endpoint_that_publishes_its_keys_is_ok(world: World) -> None:
    trust_saml(world)
    async with serving(world) as client:
        (check,) = await check_token_endpoint(with_tokens_at(world, str(client.base_url).rstrip("/")))
    assert (check.state, check.found) == ("ok", "publishes the keys of this gateway")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_of_holdfast_s_own_that_others_can_read_is_a_warning(world: World, mode: int) -> None:
    trust_saml(world)
    TokenKeys(world.settings.token_key_folder).prepare(0, 600)
    keys = make_keys(world)
    write_private(world.settings.mask_key_file, b"x")
    assert diagnose(world)["permissions"][0] == "ok"
    (token_key,) = world.settings.token_key_folder.glob("*.pem")
    for file in (keys.epoch_key, keys.root_key, token_key, world.settings.mask_key_file):
        file.chmod(mode)
        state, found, advice = diagnose(world)["permissions"]
        assert (state, found) == ("warn", f"{file} is open to others")
        assert f"chmod 600 {file}" in advice
        file.chmod(0o600)


def test_a_file_that_is_given_may_be_a_group_s_and_nobody_else_s(world: World) -> None:
    for name in ("listener.key", "gateway.token"):
        file = world.folder / name
        file.chmod(0o640)
        assert diagnose(world)["permissions"][0] == "ok"
        file.chmod(0o644)
        assert diagnose(world)["permissions"][:2] == ("warn", f"{file} is open to others")
        file.chmod(0o600)


def test_a_folder_of_keys_that_others_can_write_is_a_warning(world: World) -> None:
    keys = make_keys(world)
    for folder, mode in ((keys.folder, 0o770), (world.settings.state_dir, 0o707)):
        folder.chmod(mode)
        state, found, advice = diagnose(world)["permissions"]
        assert (state, found) == ("warn", f"{folder} can be written by others")
        assert f"chmod 700 {folder}" in advice
        folder.chmod(0o755)
    world.settings.state_dir.chmod(0o775)
    assert diagnose(world)["permissions"][0] == "ok"


@pytest.mark.parametrize(
    ("lacking", "state", "found"),
    [
        ([], "ok", "the credential may impersonate callers"),
        ([Right("", "users")], "warn", "the credential may not impersonate any users"),
        ([Right("", "users"), Right("", "groups", name="a")], "fail", "the credential may not impersonate groups a"),
        ([Right("authentication.k8s.io", "uids")], "fail", "the credential may not impersonate uids"),
    ],
)
def test_rights_to_impersonate_are_judged_by_whether_they_can_be_narrowed(
    lacking: list[Right], state: str, found: str
) -> None:
    judged = judge_rights(lacking)
    assert (judged.state, judged.found) == (state, found)


@pytest.mark.parametrize(
    ("skew", "state"),
    [(None, "ok"), (0.4, "ok"), (-4.0, "ok"), (8.0, "warn"), (-20.0, "warn"), (31.0, "fail"), (-90.0, "fail")],
)
def test_a_clock_is_judged_by_what_tokens_tolerate(skew: float | None, state: str) -> None:
    judged = judge_skew("issuer", "1 keys", skew)
    assert (judged.state, "differs by" in judged.found) == (state, state != "ok")


async def test_the_approvals_api_is_not_started_before_the_first_start(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # of nobody, from here on
    approvals = world.settings.approvals.model_copy(update={"port": port})
    settings = world.settings.model_copy(update={"listen": Listen(), "approvals": approvals})
    assert not settings.state_dir.joinpath("listener").exists()
    check = await check_approvals(settings)
    assert (check.state, check.found, check.advice) == (
        "warn",
        "not started yet",
        "start `holdfast serve` or `holdfast console`",
    )


@pytest.mark.parametrize("is_started", [False, True])
async def test_a_stranger_on_the_port_of_the_approvals_api_is_a_failure(world: World, is_started: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    stranger = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = stranger.sockets[0].getsockname()[1]
    listen = world.settings.listen if is_started else Listen()
    approvals = world.settings.approvals.model_copy(update={"port": port})
    settings = world.settings.model_copy(update={"approvals": approvals, "listen": listen})
    async with stranger:
        check = await check_approvals(settings)
    assert (check.state, check.found.startswith(f"another process listens on 127.0.0.1:{port} (")) == ("fail", True)
    assert "choose another approvals.port" in check.advice
    assert (await check_approvals(settings)).state == "warn"


@pytest.mark.parametrize(("path", "code"), [("/nowhere", 404), ("/jwks?", 200)])
async def test_another_service_with_our_certificate_is_no_approvals_api(
    world: World, identity_provider: IdentityProvider, path: str, code: int
) -> None:
    url = identity_provider.url.rstrip("/") + path
    approvals = world.settings.approvals.model_copy(update={"url": url})
    listen = Listen(certificate_authority=identity_provider.ca_file)
    check = await check_approvals(world.settings.model_copy(update={"approvals": approvals, "listen": listen}))
    assert (check.state, check.found) == ("fail", f"{url} answered {code}, and not as the approvals API does")


@pytest.mark.parametrize(("host", "state"), [("127.0.0.1", "ok"), ("127.0.0.2", "warn")])
async def test_the_approvals_api_is_known_by_its_certificate_under_any_name(
    world: World, host: str, state: str
) -> None:
    """127.0.0.2 is no name in the certificate; the whole of 127.0.0.0/8 is the same machine."""
    async with serving(world, host) as client:
        approvals = world.settings.approvals.model_copy(update={"host": host, "port": client.base_url.port})
        check = await check_approvals(world.settings.model_copy(update={"approvals": approvals}))
    assert check.state == state
    assert state == "ok" or "answers under another name" in check.found


def test_what_is_wrong_with_the_upstream_is_told_with_one_order(world: World) -> None:
    _, found, advice = diagnose(world)["upstream"]
    assert (found.endswith(")"), advice) == (True, "check the address and the network")
    (world.folder / "gateway.token").unlink()
    _, found, advice = diagnose(world)["upstream"]
    assert (found.endswith("cannot be read: No such file or directory"), advice) == (
        True,
        "correct upstream in the settings file",
    )


def configure(world: World, **audit: object) -> None:
    """Set `audit` in the settings file."""
    file = world.folder / "holdfast.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("audit:")]
    file.write_text("\n".join([*lines, f"audit: {json.dumps(audit, default=str)}", ""]))


def make_keys(world: World, *, age: timedelta = timedelta(0), replica: str | None = None) -> KeyFolder:
    """The keys as a first start made them, so long ago."""
    folder, settings = KeyFolder(world.settings.key_folder), world.settings
    open_epoch_key(folder, settings.cluster, replica or settings.replica_name, datetime.now(UTC) - age)
    return folder


def test_the_root_key_is_to_be_moved_away(world: World) -> None:
    folder = make_keys(world)
    state, found, advice = diagnose(world)["keys"]
    assert (state, found) == ("warn", f"{folder.root_key} is on this machine")
    assert "move it away" in advice
    folder.root_key.unlink()
    assert diagnose(world)["keys"][0] == "ok"


def test_keys_that_are_not_made_yet_are_made_by_serve(world: World) -> None:
    assert diagnose(world)["keys"][:2] == (
        "ok",
        f"{world.settings.key_folder / 'epoch.key'} will be made by `holdfast serve`",
    )
    assert not world.settings.key_folder.exists()
    folder = make_keys(world)
    folder.epoch_key.unlink()
    assert diagnose(world)["keys"][0] == "ok"
    folder.root_key.unlink()
    state, found, advice = diagnose(world)["keys"]
    assert (state, advice) == ("fail", "put the file back, or run `holdfast audit keys rotate --root FILE`")
    assert "epoch.key: cannot be read" in found


@pytest.mark.parametrize(("left", "state"), [(31, "ok"), (29, "warn"), (-1, "fail")])
def test_a_key_s_certificate_ends(world: World, left: int, state: str) -> None:
    folder = make_keys(world, age=timedelta(days=EPOCH_KEY_DAYS - left, hours=-1))
    folder.root_key.unlink()
    found = diagnose(world)["keys"]
    assert found[0] == state
    assert f"until {datetime.now(UTC) + timedelta(days=left, hours=1):%Y-%m-%d}" in found[1]
    assert state == "ok" or "holdfast audit keys rotate" in found[2]


def test_a_key_that_is_another_s_or_none_is_a_failure(world: World) -> None:
    folder = make_keys(world, replica="another")
    state, found, advice = diagnose(world)["keys"]
    assert state == "fail"
    assert "is certified for testing/another, " in found
    assert advice.startswith("set `replica: another` to go on under that name, ")
    now, replicas = datetime.now(UTC), [world.settings.replica_name + role for role in ROLES]
    folder.make_epoch_key(folder.load_root(), "elsewhere", replicas, Ed25519PrivateKey.generate(), now)
    assert diagnose(world)["keys"][0] == "fail"
    secret = folder.epoch_key.read_text().partition("\n")[0]
    write_private(folder.epoch_key, f"{secret}\nnothing that a root has signed\n".encode())
    state, found, _ = diagnose(world)["keys"]
    assert state == "fail"
    assert secret not in found


def test_a_folder_for_payloads_is_tried_and_left_as_it_was(world: World) -> None:
    folder = world.folder / "payloads"
    configure(world, payloads={"folder": folder})
    assert diagnose(world)["payloads"] == ("ok", f"{folder} will be made by `holdfast serve`", "")
    assert not folder.exists()
    folder.mkdir()
    assert diagnose(world)["payloads"] == ("ok", f"{folder} can be written and read", "")
    assert list(folder.iterdir()) == []
    folder.rmdir()
    folder.write_text("no folder")
    assert diagnose(world)["payloads"][0] == "fail"


def test_a_bucket_for_payloads_is_tried(world: World, make_s3: Callable[[], S3Server]) -> None:
    server = make_s3()
    for name, key in (("access", server.access_key), ("secret", server.secret_key), ("wrong", "0123456789abcdef")):
        (world.folder / f"{name}.key").write_text(key)
    payloads = {
        "bucket": server.create_bucket(),
        "endpoint": server.endpoint,
        "accessKeyFile": "access.key",
        "secretKeyFile": "secret.key",
    }
    configure(world, payloads=payloads)
    assert diagnose(world)["payloads"] == ("ok", f"{payloads['bucket']} can be written and read", "")
    configure(world, payloads=payloads | {"secretKeyFile": "wrong.key"})
    state, found, _ = diagnose(world)["payloads"]
    assert (state, "SignatureDoesNotMatch" in found) == ("fail", True)
    server.stop()
    state, found, _ = diagnose(world)["payloads"]
    assert (state, "the server cannot be reached" in found) == ("fail", True)


def test_an_anchor_file_is_looked_at_and_not_made(world: World) -> None:
    file = world.folder / "mounted" / "anchors.notes"
    configure(world, anchors={"file": file})
    assert diagnose(world)["anchor"][:2] == ("warn", f"{file.parent} is not there or cannot be written")
    file.parent.mkdir()
    assert diagnose(world)["anchor"] == ("ok", "can be appended to", "")
    assert list(file.parent.iterdir()) == []


def test_a_witness_is_asked(world: World) -> None:
    with running_witness(world.folder / "witness") as witness:
        anchor = {"url": witness.url, "publicKey": str(witness.verifier)}
        configure(world, anchors={"witnesses": [anchor]})
        assert diagnose(world)["anchor"] == ("ok", f"the witness {witness.verifier.name} answers", "")
    state, found, _ = diagnose(world)["anchor"]
    assert (state, found.startswith("does not answer (")) == ("warn", True)
    configure(world, anchors={"witnesses": [anchor | {"url": "http://no host"}]})
    assert diagnose(world)["anchor"][0] == "warn"
    configure(world, anchors={"witnesses": [anchor | {"publicKey": WITNESS_KEY}]})
    assert diagnose(world)["anchor"][0] == "fail"


def test_a_witness_that_has_cosigned_more_than_there_is_is_told_of(world: World) -> None:
    ledger = open_ledger(world.settings, world.database)
    ledger.write([entry(), entry()])
    root = KeyFolder(world.settings.key_folder).root_pub
    with running_witness(world.folder / "witness", "--root", str(root)) as witness:
        chosen = {"url": witness.url, "publicKey": str(witness.verifier)}
        configure(world, anchors={"witnesses": [chosen]})
        told = f"the witness {witness.verifier.name} answers"
        assert diagnose(world)["anchor"] == ("ok", told, "")  # it does not know the log yet
        assert cosigned_in(witness.folder, witness.verifier) == []
        trees = LedgerTrees(ledger, LedgerStore(world.database))
        open_witness(Witness.model_validate(chosen), trees, lambda _: None).submit(ledger.latest_notes[-1])
        ledger.write([entry()])
        ledger.close()
        assert diagnose(world)["anchor"] == ("ok", told, "")
        lose_the_end(world, ledger.row)
        state, found, advice = diagnose(world)["anchor"]
        assert (state, found) == ("warn", f"has cosigned {ledger.row.origin} at size 3, which is 1 here")
        assert "holdfast audit verify" in advice
        assert [checkpoint.size for checkpoint in cosigned_in(witness.folder, witness.verifier)] == [3]


def test_an_anchor_bucket_has_object_lock(world: World, make_s3: Callable[[], S3Server]) -> None:
    server = make_s3()
    for name, key in (("access", server.access_key), ("secret", server.secret_key)):
        (world.folder / f"{name}.key").write_text(key)
    keys = {"accessKeyFile": "access.key", "secretKeyFile": "secret.key"}
    locked = {"bucket": server.create_bucket(object_lock=True), "endpoint": server.endpoint, **keys}
    configure(world, anchors={"bucket": locked})
    assert diagnose(world)["anchor"] == ("ok", "has object lock; checkpoints stay for 400 days", "")
    configure(world, anchors={"bucket": locked | {"bucket": server.create_bucket()}})
    state, found, _ = diagnose(world)["anchor"]
    assert (state, "without object lock" in found) == ("fail", True)
    server.stop()
    assert diagnose(world)["anchor"][0] == "warn"


def test_a_time_stamping_authority_is_asked(world: World) -> None:
    authority = TimestampAuthority(world.folder / "authority")
    authority.start()
    anchor = {"url": authority.url, "certificateAuthority": str(authority.root_file), "folder": "stamps"}
    configure(world, anchors={"timestamp": anchor})
    stamps = world.folder / "stamps"
    expected = ("ok", f"stamps what its authority vouches for, and {stamps} can be written", "")
    assert diagnose(world)["anchor"] == expected
    assert not stamps.exists()
    configure(world, anchors={"timestamp": anchor | {"certificateAuthority": "ca.crt"}})
    state, found, _ = diagnose(world)["anchor"]
    assert (state, "reply does not hold" in found) == ("warn", True)
    authority.stop()
    configure(world, anchors={"timestamp": anchor})
    state, found, _ = diagnose(world)["anchor"]
    assert (state, "Connection refused" in found) == ("warn", True)
    configure(world, anchors={"timestamp": anchor | {"url": "http://no host"}})
    assert diagnose(world)["anchor"][0] == "warn"
    configure(world, anchors={"timestamp": anchor | {"certificateAuthority": "missing.crt"}})
    state, found, _ = diagnose(world)["anchor"]
    assert (state, "missing.crt: cannot be read" in found) == ("fail", True)


def test_every_anchor_is_told(world: World) -> None:
    stamp = {"url": "http://127.0.0.1:1/tsa", "certificateAuthority": "ca.crt", "folder": "stamps"}
    witness = {"url": "http://127.0.0.1:1/", "publicKey": WITNESS_KEY}
    configure(world, anchors={"file": "anchors.notes", "witnesses": [witness], "timestamp": stamp})
    told = runner.invoke(app, ["doctor", "--config", str(world.folder / "holdfast.yaml")]).stdout
    assert told.count("\nanchor ") == 3

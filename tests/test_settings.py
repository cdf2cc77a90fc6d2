"""holdfast.yaml is read strictly: one sentence with the file, the field, the value and what was expected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from holdfast.errors import ConfigurationError
from holdfast.policy.cases import CasesFile
from holdfast.policy.rules import PolicyFile
from holdfast.settings import ENVIRONMENT_VARIABLE, Settings, load_settings
from holdfast.settings.identity import AuthenticationConfiguration
from holdfast.settings.section import describe_fault, read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UPSTREAM = {"server": "https://api:6443", "certificateAuthority": "ca.crt", "tokenFile": "token"}
ISSUER = {"url": "https://issuer.test", "audiences": ["holdfast"]}
MAPPINGS = {"username": {"claim": "sub", "prefix": ""}}
SMALLEST: dict[str, Any] = {
    "upstream": UPSTREAM,
    "identity": {"jwt": [{"issuer": ISSUER, "claimMappings": MAPPINGS}]},
    "policies": ["p.yaml"],
}

type Load = Callable[[object], Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Read settings from a file with this content (JSON is YAML)."""

    def load(content: object) -> Settings:
        file = tmp_path / "holdfast.yaml"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_settings(file)

    return load


def changed(section: str, **values: object) -> dict[str, Any]:
    """The smallest settings with keys of a section changed; None removes one."""
    merged = {**SMALLEST.get(section, {}), **values}
    return {**SMALLEST, section: {key: value for key, value in merged.items() if value is not None}}


def issuer(**values: object) -> dict[str, Any]:
    """The smallest settings with another issuer."""
    return {**SMALLEST, "identity": {"jwt": [{"issuer": {**ISSUER, **values}, "claimMappings": MAPPINGS}]}}


def test_the_smallest_file_is_enough_and_paths_are_relative_to_its_folder(load: Load, tmp_path: Path) -> None:
    settings = load(SMALLEST)
    assert settings.upstream.token_file == tmp_path / "token"
    assert settings.policies == (tmp_path / "p.yaml",)
    assert settings.state_dir == tmp_path / "state"
    assert settings.database_url == f"sqlite:///{tmp_path / 'state' / 'audit.db'}"
    assert (settings.listen.host, settings.listen.port) == ("127.0.0.1", 8443)


def test_absolute_paths_stay_and_the_home_folder_is_found(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of-the-gateway")
    settings = load(changed("upstream", tokenFile="/run/token", certificateAuthority="~/ca.crt"))
    assert settings.upstream.token_file == Path("/run/token")
    assert settings.upstream.certificate_authority == Path("/home/of-the-gateway/ca.crt")


def test_the_environment_names_the_file(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(SMALLEST)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "holdfast.yaml"))
    assert load_settings().cluster == "kubernetes"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: [", "is not valid YAML"),
        ("a: 1\na: 2", "is not valid YAML"),
        ("--- 1\n--- 2\n", "is not valid YAML"),
        ("!!python/object:os.system {}", "is not valid YAML"),
        ("", "expected a mapping of settings"),
        ("- 1", "expected a mapping of settings"),
        ({**SMALLEST, "listn": {}}, "listn: there is no such key"),
        (changed("listen", Port=1), "listen.Port: there is no such key"),
        ({**SMALLEST, "state_dir": "x"}, "state_dir: there is no such key"),
        ({"identity": SMALLEST["identity"], "policies": ["p"]}, "upstream: is missing"),
        (issuer(audiences=[]), "identity.jwt.0.issuer.audiences: found []"),
        ({**SMALLEST, "policies": []}, "policies: found []"),
        (changed("listen", port="many"), "listen.port: found 'many'"),
        (changed("listen", port=70000), "listen.port: found 70000"),
        (changed("listen", certificate="c.pem"), "certificate and privateKey go together"),
        (changed("upstream", server="http://api"), "upstream.server: found 'http://api'"),
        (changed("upstream", server="https://api/path"), "upstream.server: found"),
        (changed("upstream", tokenFile=None), "expected one credential"),
        (changed("upstream", clientCertificate="c", clientKey="k"), "expected one credential"),
        (changed("upstream", tokenFile=None, clientCertificate="c"), "clientCertificate and clientKey go together"),
        (changed("upstream", kubeconfig="k"), "remove the other keys"),
        (changed("upstream", certificateAuthority=None), "expected server and certificateAuthority, or kubeconfig"),
        (issuer(url="http://issuer.test"), "https://, or has a jwksURL or jwksFile"),
        (issuer(algorithms=["HS256"]), "algorithms"),
        (issuer(algorithms=["none"]), "algorithms"),
        (issuer(maxLifetimeSeconds=0), "maxLifetimeSeconds: found 0"),
        (changed("audit", queueRecords=0), "audit.queueRecords: found 0"),
        (
            changed("audit", retention={"maxBytes": "1G"}),
            "audit.retention.maxBytes: found '1G'; expected: a number of bytes, as 1000000000.",
        ),
        (changed("audit", queueBytes=[1]), "audit.queueBytes: found [1]; expected: a number of bytes, as 1000000000."),
        (changed("limits", drainSeconds=-1), "limits.drainSeconds: found -1"),
        (changed("approvals", url="http://x"), "approvals.url: found"),
    ],
)
def test_a_fault_names_the_file_the_field_the_value_and_what_was_expected(
    load: Load, tmp_path: Path, content: object, expected: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(content)
    sentence = str(raised.value)
    assert sentence.startswith(str(tmp_path / "holdfast.yaml"))
    assert expected in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1",) * 2, ("0.0.0.0", "10.0.0.1"), ("10.0.0.1", "::")])  # noqa: S104
def test_gateway_and_approvals_api_have_a_port_each(load: Load, host: str, other: str) -> None:
    both = {**SMALLEST, "listen": {"host": host, "port": 8444}}
    with pytest.raises(
        ConfigurationError, match=r"approvals\.port: found 8444; expected: another port than listen\.port"
    ):
        load({**both, "approvals": {"host": other}})
    load({**both, "approvals": {"host": "10.0.0.2"}} if host == other else {**both, "approvals": {"port": 8445}})
    load({**both, "approvals": {"host": other, "embedded": False}})  # on another machine
    load({**SMALLEST, "listen": {"port": 0}, "approvals": {"port": 0}})


def test_a_long_value_is_not_repeated_whole(load: Load) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(changed("listen", port="x" * 5000))
    assert len(str(raised.value)) < 400


def test_a_file_that_is_not_there_or_no_text_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_yaml(tmp_path / "binary")


def test_every_setting_says_what_it_is() -> None:
    def fields(model: Any) -> Any:
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from fields(field.annotation)
            else:
                yield name, field.description

    assert [name for name, description in fields(Settings) if not description] == []


def sections_of(model: Any) -> Iterator[Any]:
    """The model and every section in it, those in lists too."""
    pending, seen = [model], set()
    while pending:
        annotation = pending.pop()
        pending += get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
            seen.add(annotation)
            yield annotation
            pending += [field.annotation for field in annotation.model_fields.values()]


WRONG = (None, True, 1, -1, 10**9, 1.5, "", "x", "no number", "9" * 5000, [], [1], [None], {}, {"a": 1})


@pytest.mark.parametrize(
    "model", [Settings, AuthenticationConfiguration, PolicyFile, CasesFile], ids=lambda it: it.__name__
)
def test_no_fault_takes_knowledge_of_python(model: type[BaseModel]) -> None:
    told: dict[str, str] = {}
    for section in sections_of(model):
        for name, field in section.model_fields.items():
            for value in WRONG:
                try:
                    section.model_validate({field.alias or name: value}, by_alias=True, by_name=False)
                except ValidationError as error:
                    told.update({fault["type"]: describe_fault(fault) for fault in error.errors()})
    foreign = r"input|should|valid|string|tuple|dictionary|instance|pattern|integer|boolean"
    assert {kind: told[kind] for kind in told if re.search(foreign, told[kind].rpartition("expected: ")[2])} == {}
    assert told.keys() >= {"missing", "string_type", "literal_error"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (issuer(audiences="kubectl"), "identity.jwt.0.issuer.audiences: found 'kubectl'; expected: a list."),
        (issuer(audiences=[]), "audiences: found []; expected: a list with at least one entry."),
        (issuer(audiences=[1]), "audiences.0: found 1; expected: text; where YAML takes it for something else"),
        (issuer(algorithms=["HS256"]), "found 'HS256'; expected: 'RS256', 'RS384', "),
        (changed("upstream", server="http://api"), "found 'http://api'; expected: https://HOST:PORT, without a path."),
        (changed("upstream", impersonate="maybe"), "found 'maybe'; expected: true or false."),
        (changed("listen", port="many"), "listen.port: found 'many'; expected: a whole number."),
        (changed("listen", port=70000), "listen.port: found 70000; expected: at most 65535."),
        (changed("listen", port=-1), "listen.port: found -1; expected: at least 0."),
        (changed("listen", hosts=None) | {"listen": 3}, "listen: found 3; expected: a mapping of keys and values."),
        (changed("limits", drainSeconds="long"), "found 'long'; expected: a number."),
        (changed("audit", deadlineSeconds=0), "found 0; expected: more than 0."),
        ({**SMALLEST, "policies": [3]}, "policies.0: found 3; expected: the path of a file or folder."),
        ({**SMALLEST, "cluster": "a/b"}, "found 'a/b'; expected: at most 64 letters, digits and any of"),
        ({**SMALLEST, "cluster": "a\n"}, "at most 64 letters"),
    ],
)
def test_a_fault_says_in_plain_words_what_was_expected(load: Load, content: object, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        load(content)

"""The story, act by act. Every act says what must come out and the narrator keeps count."""

from __future__ import annotations

import base64
import json
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from holdfast.audit.payload import decompress
from story.narrator import has
from story.stage import AGENT, APPROVER, SECRET_VALUE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from story.narrator import Narrator
    from story.stage import Stage

HOLD_SECONDS = 30


class Story:
    """Six acts on one stage."""

    def __init__(self, stage: Stage, narrator: Narrator) -> None:
        self.stage = stage
        self.tell = narrator
        self.agent = stage.write_kubeconfig(AGENT, stage.token(AGENT, "agents"))

    def play(self) -> None:
        """All of it, in order."""
        self.look_around()
        self.read_a_secret()
        self.try_what_is_denied()
        self.delete_namespaces()
        self.come_without_an_identity()
        self.read_the_record()

    def look_around(self) -> None:
        """Allowed, and recorded."""
        self.tell.act("1. The agent looks around and works: allowed, recorded")
        listed = self.tell.kubectl_run(self.agent, "get", "pods", "-n", "demo")
        self.tell.expect("the agent lists pods", listed.returncode == 0 and has(listed.stdout, r"web\s+1/1\s+Running"))
        self._watch()
        logs = self.tell.kubectl_run(self.agent, "logs", "web", "-n", "demo", "--tail=2")
        self.tell.expect("it reads logs", logs.returncode == 0)
        ran = self.tell.kubectl_run(self.agent, "exec", "web", "-n", "demo", "--", "sh", "-c", "echo hello; exit 7")
        self.tell.expect(
            "it runs a command, and the exit code comes back", ran.returncode == 7 and "hello" in ran.stdout
        )

    def _watch(self) -> None:
        watch = self.tell.kubectl_start(self.agent, "get", "pods", "-n", "demo", "--watch")
        time.sleep(2)
        self.stage.admin_run("label", "pod", "web", "-n", "demo", "seen=yes", "--overwrite")
        time.sleep(2)
        watch.send_signal(signal.SIGINT)
        text = watch.communicate(timeout=20)[0]
        self.tell.show(text)
        self.tell.expect("it watches pods and sees a change", len(text.strip().splitlines()) >= 3)

    def read_a_secret(self) -> None:
        """Masked for the agent, and masked in the record."""
        self.tell.act("2. It reads a Secret: the values come back masked")
        command = ("get", "secret", "database", "-n", "demo", "-o", "jsonpath={.data.password}")
        got = self.tell.kubectl_run(self.agent, *command)
        shown = subprocess.run(["base64", "-d"], input=got.stdout, capture_output=True, text=True).stdout
        self.tell.say(f"decoded: {shown}")
        self.tell.expect("the value is masked", got.returncode == 0 and shown.startswith("masked:v1:"))
        self.tell.expect("the true value is nowhere in the database", not self._record_has(SECRET_VALUE))

    def try_what_is_denied(self) -> None:
        """Forbidden, with the rule's name."""
        self.tell.act("3. It tries what policy denies")
        tried = self.tell.kubectl_run(
            self.agent, "create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", f"--user={AGENT}"
        )
        self.tell.expect(
            "Forbidden, and the rule is named", tried.returncode == 1 and has(tried.stderr, r'forbidden.*rule "')
        )

    def delete_namespaces(self) -> None:
        """Held: approved, denied, given up."""
        self.tell.act("4. It deletes namespaces: each call waits for a person")
        self._approve_one()
        self._deny_one()
        self._give_up_one()

    def _approve_one(self) -> None:
        call = self.tell.kubectl_start(self.agent, "delete", "namespace", "demo-old", "--wait=false")
        hold = self._await_hold("demo-old")
        self.tell.expect("kubectl is still waiting", call.poll() is None)
        mine = self._approvals(AGENT, "agents", "approve", hold)
        self.tell.expect("the agent cannot approve its own call", mine.returncode == 1)
        self._approvals(APPROVER, "platform", "list")
        approved = self._approvals(APPROVER, "platform", "approve", hold, "--reason", "it is unused")
        text = call.communicate(timeout=HOLD_SECONDS)[0]
        self.tell.show(text)
        self.tell.expect("approved: the same kubectl call succeeds", approved.returncode == 0 and call.returncode == 0)
        self.tell.expect(
            "the namespace is going", "Terminating" in self._phase("demo-old") or not self._phase("demo-old")
        )

    def _deny_one(self) -> None:
        call = self.tell.kubectl_start(self.agent, "delete", "namespace", "demo-keep", "--wait=false")
        self._approvals(APPROVER, "platform", "deny", self._await_hold("demo-keep"), "--reason", "still in use")
        text = call.communicate(timeout=HOLD_SECONDS)[0]
        self.tell.show(text)
        self.tell.expect("denied: kubectl prints the reason", call.returncode == 1 and "still in use" in text)
        self.tell.expect("the namespace is there", self._phase("demo-keep") == "Active")

    def _give_up_one(self) -> None:
        call = self.tell.kubectl_start(self.agent, "delete", "namespace", "demo-slow", "--wait=false")
        hold = self._await_hold("demo-slow")
        self.tell.say("Ctrl-C")
        call.send_signal(signal.SIGINT)
        call.communicate(timeout=20)
        time.sleep(2)
        late = self._approvals(APPROVER, "platform", "approve", hold)
        self.tell.expect("given up: the hold is cancelled and cannot be approved", late.returncode == 1)
        self.tell.expect("the namespace is there", self._phase("demo-slow") == "Active")

    def come_without_an_identity(self) -> None:
        """No token, an old one, one for somebody else, and a borrowed name: refused."""
        self.tell.act("5. It comes without a valid identity")
        short = self.stage.token(AGENT, "agents", lifetime=1)
        time.sleep(2)
        self._come_with_no_token()
        tokens = {
            "an expired token": short,
            "a token for another audience": self.stage.token(AGENT, "agents", audience="somewhere-else"),
        }
        for name, token in tokens.items():
            self.tell.say(f"with {name}:")
            file = self.stage.write_kubeconfig(name.replace(" ", "-"), token)
            refused = self.tell.kubectl_run(file, "get", "pods", "-n", "demo")
            self.tell.expect(f"{name}: refused", refused.returncode == 1 and "must be logged in" in refused.stderr)
        borrowed = self.tell.kubectl_run(self.agent, "get", "pods", "-n", "demo", "--as=system:admin")
        self.tell.expect("--as: refused", borrowed.returncode == 1 and "impersonat" in borrowed.stderr)

    def _come_with_no_token(self) -> None:
        # Not with kubectl: it asks for a user name on the terminal before it sends anything.
        url = f"{self.stage.gateway_url}/api/v1/namespaces/demo/pods"
        self.tell.say(f"$ curl {url}")
        answer = httpx.get(url, verify=str(self.stage.gateway_ca))
        self.tell.show(answer.text)
        self.tell.expect("no token: refused", answer.status_code == 401 and answer.json()["kind"] == "Status")

    def read_the_record(self) -> None:
        """List it, show one call in full, export it as a flow file."""
        self.tell.act("6. The story, from the audit database")
        listed = self._holdfast("audit", "list", "--limit", "12")
        self.tell.expect("the record lists the story", listed.returncode == 0 and "namespaces" in listed.stdout)
        held = self._listed_calls("--resource", "namespaces", "--verb", "delete")
        first = next((call for call in held if call.get("name") == "demo-old"), None)
        self.tell.expect("the deleted namespace is in it", first is not None)
        if first is not None:
            shown = self._holdfast("audit", "show", str(first["auditID"]))
            self.tell.expect("one call in full names its approver", APPROVER in shown.stdout)
        self._export()

    def _export(self) -> None:
        file = self.stage.flow_file
        exported = self._holdfast("audit", "export", "--flows", str(file))
        with file.open("rb") as stream:
            flows = [flow for flow in FlowReader(stream).stream() if isinstance(flow, HTTPFlow)]
        self.tell.say(f"{len(flows)} flows exported as mitmproxy keeps them")
        self.tell.expect("mitmproxy's own reader opens the export", exported.returncode == 0 and len(flows) >= 10)
        self.tell.expect("the Secret's value is not in it", SECRET_VALUE.encode() not in file.read_bytes())

    # -- small steps -------------------------------------------------------------------------------------------

    def _approvals(self, person: str, group: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self.tell.say(f"{person}:")
        environment = self.stage.holdfast_environment(self.stage.token(person, group))
        return self.tell.run(
            [sys.executable, "-m", "holdfast.cli", "approvals", *arguments],
            shown=shlex.join(["holdfast", "approvals", *arguments]),
            environment=environment,
        )

    def _await_hold(self, namespace: str) -> str:
        environment = self.stage.holdfast_environment(self.stage.token(APPROVER, "platform"))
        deadline = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < deadline:
            listed = subprocess.run(
                [sys.executable, "-m", "holdfast.cli", "approvals", "list", "-o", "json"],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
            for hold in json.loads(listed.stdout or "[]"):
                if hold["name"] == namespace and hold["state"] == "pending":
                    return str(hold["id"])
            time.sleep(0.3)
        self.tell.expect(f"a hold for {namespace} appears", came_true=False)
        return "h-none"

    def _holdfast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.tell.run(
            [sys.executable, "-m", "holdfast.cli", *arguments],
            shown=shlex.join(["holdfast", *arguments]),
            environment=self.stage.holdfast_environment(),
        )

    def _listed_calls(self, *filters: str) -> list[dict[str, object]]:
        done = subprocess.run(
            [sys.executable, "-m", "holdfast.cli", "audit", "list", "-o", "json", *filters],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self.stage.holdfast_environment(),
        )
        found: list[dict[str, object]] = json.loads(done.stdout or '{"calls": []}')["calls"]
        return found

    def _phase(self, namespace: str) -> str:
        return self.stage.admin_run(
            "get", "namespace", namespace, "--ignore-not-found", "-o", "jsonpath={.status.phase}"
        ).strip()

    def _record_has(self, value: str) -> bool:
        encoded = base64.b64encode(value.encode())
        return any(needle in content for content in self._kept() for needle in (value.encode(), encoded))

    def _kept(self) -> Iterator[bytes]:
        """The audit database's files as they are, and every payload in it decompressed."""
        database = Path(self.stage.folder, "state", "audit.db")
        for file in database.parent.glob("audit.db*"):
            yield file.read_bytes()
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for codec, body in connection.execute("SELECT codec, body FROM blobs"):
                yield decompress(codec, body)

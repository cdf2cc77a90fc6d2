"""No secret at rest and none in view: everything that mitmweb shows, logs and writes is searched for all of them."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from attacks.conftest import POD_PATH, Target
from attacks.mitmweb import MitmwebGateway, everything
from attacks.scripted_upstream import answer, send
from holdfast.kube.subprotocols import BEARER
from recording_upstream import TOKEN
from running import read_stored

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_PATH = "/api/v1/namespaces/demo/secrets/s"
VALUE = "hunter2-of-the-database"
ENCODED = base64.b64encode(VALUE.encode()).decode()
SECRET = (
    '{"kind":"Secret","apiVersion":"v1","metadata":{"name":"s","namespace":"demo","annotations":'
    f'{{"kubectl.kubernetes.io/last-applied-configuration":"{{\\"kind\\":\\"Secret\\",\\"data\\":{{\\"password\\":\\"{ENCODED}\\"}}}}"}}}},'
    f'"data":{{"password":"{ENCODED}"}}}}'
).encode()


def test_no_token_and_no_masked_value_is_ever_shown_logged_or_stored(make_target: Callable[..., Target]) -> None:
    target = make_target(MitmwebGateway)
    web = target.gateway
    assert isinstance(web, MitmwebGateway)
    token, half = web.token("agent", "agents"), web.token("aborted", "agents")
    target.upstream.answers[SECRET_PATH.encode()] = SECRET
    target.upstream.answers[b"/api/v1/namespaces/demo/pods/p/log"] = b"Bearer abcdefghijklmnopqrstuvwx"

    def act(connection: object) -> None:
        target.upstream.release.wait(30)
        send(answer(SECRET))(connection)  # type: ignore[arg-type]

    target.upstream.acts[SECRET_PATH.encode()] = act
    with ThreadPoolExecutor() as pool:
        call = pool.submit(target.call, "GET", SECRET_PATH, token=token)
        target.settle(target.upstream.calls)
        during = dict(everything(web))
        target.upstream.release.set()
        response = call.result()
    assert response.status_code == 200
    assert VALUE not in response.text
    assert ENCODED not in response.text
    _misbehave(target, token, half)
    after = dict(everything(web))
    folder = {
        str(file): file.read_bytes() for file in web.folder.rglob("*") if file.is_file() and file != web.token_file
    }
    target.gateway.stop()
    folder |= read_stored(web.database)
    folder |= {"flow file": web.flow_file.read_bytes(), "output": "".join(web.output).encode()}
    secrets = [token, half, TOKEN, VALUE, ENCODED, base64.b64encode(TOKEN.encode()).decode(), "subprotocol-token"]
    assert any(b"/secrets/s" in content for content in after.values())
    assert b"/secrets/s" in folder["flow file"]
    assert any(b'"kind":"Secret"' in content for place, content in folder.items() if " blob " in place)
    for place, content in [*during.items(), *after.items(), *folder.items()]:
        for secret in secrets:
            assert secret.encode() not in content, f"{secret[:12]} is in {place}"


def _misbehave(target: Target, token: str, half: str) -> None:
    """Everything that makes mitmproxy quote what it was sent."""
    target.call("POST", "/api/v1/namespaces/kube-system/pods", token=token, json={"kind": "Pod"})
    target.call("GET", POD_PATH + "?access_token=" + half, token=token)
    raw = [
        f"GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {half}\r\nX-Half",
        f"GET /api HTTP/1.1\r\nAuthorization Bearer {half}\r\n\r\n",
        f"GET /{half}\r\n\r\n",
        f"GET /api HTTP/1.1\r\nHost: h\r\nAuthorization : Bearer {half}\r\n\r\n",
        f"GET /api HTTP/1.1\r\nHost: h\r\nX_Authorization: Bearer {half}\r\n\r\n",
        f"GET /api HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {half}\r\n Bearer {half}\r\n\r\n",
        f"GET /api HTTP/1.1\r\nHost: h\r\nProxy-Authorization: Bearer {half}\r\nCookie: a={half}\r\n\r\n",
        f"GET {POD_PATH}/exec?command=x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.subprotocol-token\r\n\r\n",
        f"GET {POD_PATH}/exec?command=x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Protocol: v5.channel.k8s.io, {BEARER}{half}\r\nX_A: {half}\r\n\r\n",
    ]
    for request in raw:
        with target.connect() as connection:
            connection.sendall(request.encode())
            connection.settimeout(0.5)
            try:
                connection.recv(65536)
            except OSError:
                continue

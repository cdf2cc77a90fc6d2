"""A user of mitmweb's own HTTP API, with all that its page can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

from attacks.conftest import ScriptedGateway, free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "mitmweb-password"


@dataclass
class MitmwebGateway(ScriptedGateway):
    """The gateway under mitmweb, logging all it can, writing every flow to a file."""

    program: str = "mitmweb"
    web_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = {
            "web_password": PASSWORD,
            "web_port": self.web_port,
            "web_open_browser": "false",
            "termlog_verbosity": "debug",
            "console_eventlog_verbosity": "debug",
            "save_stream_file": self.flow_file,
        }
        self.arguments = tuple(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))
        self.web = httpx.Client(
            base_url=f"http://127.0.0.1:{self.web_port}",
            headers={"Authorization": f"Bearer {PASSWORD}", "X-XSRFToken": "00"},
            cookies={"_mitmproxy_xsrf": "00"},
        )

    @property
    def flow_file(self) -> Path:
        """Where mitmweb writes flows (`-w`)."""
        return self.folder / "flows"

    def get(self, path: str) -> httpx.Response:
        """Read something."""
        response = self.web.get(path)
        assert response.status_code == 200
        return response

    def post(self, path: str) -> None:
        """Do something."""
        response = self.web.post(path)
        assert response.status_code == 200, response.text

    def set_options(self, **options: Any) -> httpx.Response:
        """Change options."""
        return self.web.put("/options", json=options)

    def flow(self, path: str, **state: object) -> dict[str, Any]:
        """The last flow with this path, once it is in this state."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            flows = [flow for flow in self.get("/flows").json() if flow.get("request", {}).get("path") == path]
            found[:] = [flow for flow in flows[-1:] if state.items() <= flow.items()]
            return bool(found)

        wait_until(is_there)
        return found[0]

    def edit(self, flow_id: str, **request: object) -> None:
        """Change a flow's request."""
        response = self.web.put(f"/flows/{flow_id}", json={"request": request})
        assert response.status_code == 200, response.text


def everything(web: MitmwebGateway) -> Iterator[tuple[str, bytes]]:
    """What mitmweb tells of itself and its flows, by path."""
    for path in ("/flows", "/flows/dump", "/events", "/state", "/options"):
        yield path, web.get(path).content
    for flow in web.get("/flows").json():
        for part in ("request", "response"):
            place = f"/flows/{flow['id']}/{part}/content.data"
            yield place, web.web.get(place).content

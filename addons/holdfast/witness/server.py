"""The witness as a process (see `holdfast.serving`)."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.errors import BadRequest, Forbidden
from holdfast.serving import Service, serve
from holdfast.witness.application import WitnessAPI
from holdfast.witness.cosigning import Witness

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.audit.note import KeyName
    from holdfast.witness.state import WitnessFolder
    from holdfast.witness.trust import Trust

log = logging.getLogger(__name__)


def run(
    folder: WitnessFolder,
    trust: Trust,
    *,
    name: KeyName | None,
    new_logs_a_day: int,
    host: str,
    port: int,
    certificate: Path | None,
    private_key: Path | None,
    ready: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` gets the URL once it takes requests. `name` is what its key is called.

    Of one key no more than `new_logs_a_day` new logs are cosigned.

    Raises ConfigurationError when the folder, the port or the certificate cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    service = Service("the witness", "choose another with --listen", certificate, private_key)
    with folder.locked(), service.bind(host, port) as listener:
        witness = Witness(folder.open_key(name), trust, folder, lambda: datetime.now(UTC), new_logs_a_day)
        _recall(trust, folder)
        asyncio.run(serve(service, WitnessAPI(witness).application(), listener, ready))


def _recall(trust: Trust, folder: WitnessFolder) -> None:
    """Trust again what was learned before the last end, where whoever certified it is still trusted."""
    for certificate in folder.certificates():
        try:
            trust.recall(certificate)
        except (BadRequest, Forbidden) as error:
            log.warning("a certificate of an earlier run is passed over: %s", error)

"""The `holdfast` command.

    application   the tree of commands, and how a failure becomes one sentence and an exit code
    options       what several commands take
    output        tables, JSON and YAML; text of others made safe to print
    serve         serve, console
    dev_issuer    dev-issuer, dev-issuer token
    approvals     approvals list | show | approve | deny, over the HTTP client in `approvals_client`
    audit         audit list and all that follows, a module for each command
    witness       witness serve, witness keys
    login         login, get-token, logout
    kubeconfig    kubeconfig
    explain       identity explain
    identity      identity revoke | restore | revocations
    identity_log  identity log
    policy        policy check
    doctor        doctor, with one function per check in `checks`, and who could read a key in `permissions`

Exit codes: 0 done, 1 refused or a check failed, 2 something is not configured as it must be. Whatever is slow to
import is imported by the command that needs it, so that `--help` and completion answer at once.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.cli.application import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and exit. A token that is at hand is printed before anything slow is imported."""
    if sys.argv[1:2] == ["get-token"]:
        from holdfast.login.cached import answer

        found = answer(sys.argv[2:], os.environ, time.time())
        if found is not None:
            print(found)
            return
    from holdfast.cli.application import main as run

    run()


def __getattr__(name: str) -> Any:
    """The tree of commands, imported when it is asked for: the cached path must not wait for it (PEP 562)."""
    if name != "app":
        raise AttributeError(name)
    from holdfast.cli.application import app

    return app

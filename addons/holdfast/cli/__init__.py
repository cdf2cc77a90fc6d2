"""The `holdfast` command.

    application   the tree of commands, and how a failure becomes one sentence and an exit code
    options       what several commands take
    output        tables, JSON and YAML; text of others made safe to print
    serve         serve, console
    dev_issuer    dev-issuer, dev-issuer token
    approvals     approvals list | show | approve | deny, over the HTTP client in `approvals_client`
    audit         audit list and all that follows, a module for each command
    witness       witness serve, witness keys
    kubeconfig    kubeconfig
    identity      identity revoke | restore | revocations
    policy        policy check
    doctor        doctor, with one function per check in `checks`

Exit codes: 0 done, 1 refused or a check failed, 2 something is not configured as it must be. Whatever is slow to
import is imported by the command that needs it, so that `--help` and completion answer at once.
"""

from holdfast.cli.application import app, main

__all__ = ["app", "main"]

"""Who else on this machine could read a private key or a token, or put another in its place.

What Holdfast makes itself is for its own user alone (0600, in folders of 0700), so any right of the group or of others
was given later. What is given to it may be shared with a group, as Kubernetes does with projected tokens.
"""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from holdfast.settings import Settings

ANYBODY_ELSE = stat.S_IRWXG | stat.S_IRWXO
OTHERS = stat.S_IRWXO
MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def find_exposed(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is exposed, and the command that ends it, for each file and folder; what is not there is not exposed."""
    own, given = set(_own_files(settings)), set(_given_files(settings))
    for file in sorted(own | given):
        if _mode(file) & (ANYBODY_ELSE if file in own else OTHERS):
            yield f"{file} is open to others", f"chmod 600 {shlex.quote(str(file))}"
    keys = {settings.key_folder, settings.token_key_folder, _listener(settings)}
    for folder in sorted({settings.state_dir, *keys}):
        # What the group may in stateDir, the umask says, and the usual ones that let it write make each user a group.
        if _mode(folder) & MAY_WRITE & (ANYBODY_ELSE if folder in keys else OTHERS):
            yield f"{folder} can be written by others", f"chmod 700 {shlex.quote(str(folder))}"


def _own_files(settings: Settings) -> Iterable[Path]:
    yield settings.mask_key_file
    yield from settings.token_key_folder.glob("*.pem")
    yield from settings.key_folder.glob("*.key")
    yield from (_listener(settings) / name for name in ("ca.key", "tls.key", "bundle.pem"))


def _given_files(settings: Settings) -> Iterable[Path]:
    upstream, audit = settings.upstream, settings.audit
    given = [settings.listen.private_key, upstream.token_file, upstream.client_key, upstream.kubeconfig]
    given += [bucket.secret_key_file for bucket in (audit.payloads, audit.anchors.bucket) if bucket is not None]
    return (file for file in given if file is not None)


def _listener(settings: Settings) -> Path:
    return settings.state_dir / "listener"


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0

"""What both uses of an S3 server share, payloads and anchors: keys in files, and how their clients' errors are told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from holdfast.errors import ConfigurationError
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from pathlib import Path

_KEY = re.compile(r"[!-~]+")


def read_key(file: Path) -> str:
    """Read an access key or a secret one. Raises ConfigurationError."""
    key = read_file(file).decode("ascii", "replace").strip()
    if not _KEY.fullmatch(key):
        raise ConfigurationError(f"{file}: holds no key; expected one line without white space.")
    return key


def first_line(error: Exception) -> str:
    """What a client says first, without its full stop; the rest quotes the request."""
    return str(error).strip().partition("\n")[0].rstrip(".")

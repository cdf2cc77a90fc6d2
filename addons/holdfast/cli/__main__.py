"""`python -m holdfast.cli`: the command, for a parent that knows its interpreter but not its PATH."""

from __future__ import annotations

from holdfast.cli import main

main()

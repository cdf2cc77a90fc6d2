"""`python -m holdfast.cli`: the command, for a parent that knows its interpreter but not its PATH."""

from holdfast.cli.application import main

main()

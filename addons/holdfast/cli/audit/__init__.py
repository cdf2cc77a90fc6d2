"""`holdfast audit`: the record, listed, told, proven and kept.

calls   list, show, export
"""

import typer

from holdfast.cli.audit import calls

app = typer.Typer(help="Read the record of every call.", no_args_is_help=True)
app.command("list")(calls.list_calls)
app.command("show")(calls.show)
app.command("export")(calls.export)

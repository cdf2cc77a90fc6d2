"""`holdfast audit`: the record, listed, told, proven and kept.

`calls` has list, show and export; `reconcile` and `migrate_store` have the commands of those names.
"""

import typer

from holdfast.cli.audit import calls, migrate_store, reconcile

app = typer.Typer(help="Read the record of every call.", no_args_is_help=True)
app.command("list")(calls.list_calls)
app.command("show")(calls.show)
app.command("export")(calls.export)
app.command("reconcile")(reconcile.reconcile)
app.command("migrate-store")(migrate_store.migrate_store)

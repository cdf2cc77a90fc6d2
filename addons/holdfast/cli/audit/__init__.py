"""`holdfast audit`: the record, listed, told, proven and kept.

`calls` has list and show; the other modules have the commands of their names,
and `keys` has accept beside them. `filters` has the options that choose calls;
`reading` and `maintenance` open what several commands need.
"""

import typer

from holdfast.cli.audit import (
    calls,
    erase,
    export,
    keys,
    migrate_store,
    prove,
    reader_role,
    reconcile,
    retention,
    verify,
)

app = typer.Typer(help="Read the record of every call.", no_args_is_help=True)
app.command("list")(calls.list_calls)
app.command("show")(calls.show)
app.command("export")(export.export)
app.add_typer(keys.app, name="keys")
app.command("accept")(keys.accept)
app.command("verify")(verify.verify)
app.command("prove")(prove.prove)
app.command("verify-proof")(prove.verify_proof)
app.add_typer(retention.app, name="retention")
app.command("erase")(erase.erase)
app.command("reconcile")(reconcile.reconcile)
app.command("reader-role")(reader_role.reader_role)
app.command("migrate-store")(migrate_store.migrate_store)

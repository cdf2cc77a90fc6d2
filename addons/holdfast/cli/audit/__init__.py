"""`holdfast audit`: the record, listed, told, proven and kept.

calls          list, show
export         export
verify         verify
prove          prove, verify-proof
reconcile      reconcile
retention      retention plan, retention run
erase          erase
keys           keys init, keys rotate, keys show, accept
reader_role    reader-role
migrate_store  migrate-store
filters        the options that choose calls
reading        what commands that only read open
maintenance    what commands that erase open
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

"""Holdfast: an identity-aware gateway for the Kubernetes API, as a set of mitmproxy addons.

The path of one request, and the reading order:

    client -- TLS --> kube        what is asked: RequestInfo from the canonical path
                      identity    who asks: an OIDC token becomes an Identity
                      policy      Decision: allow | deny | hold, the rule that said so, the masks that apply
                      approval    hold: the call waits on the wire for a person
                      audit       the intent is durable
                      credential  the gateway's own credential, attached below the flow
                            --> kube-apiserver -->
                      masking     two views of one body: what the caller sees, what is stored
                      audit       the outcome is durable
    client <---------

    exchange      the values that pass between the stages
    errors        one root error; every refusal is a metav1.Status
    settings      holdfast.yaml
    database      engine, transactions, migrations
    certificates  a small authority for the listener, where none is given
    hooks         one thin mitmproxy hook class per stage; fail_closed; `holdfast serve`
    replay        the record as a mitmproxy flow file
    console       the approvals API, a process of its own
    cli           the `holdfast` command

`cli` stands over `hooks | replay | console`, these over the stages (no stage imports another), those over
`kube`, over `settings | database | certificates`, over `exchange`, over `errors`; import-linter keeps it so.
Only `hooks` and `credential.layer` import mitmproxy; only `database` and the stores import SQLAlchemy.
"""

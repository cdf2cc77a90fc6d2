"""Holdfast: an identity-aware gateway for the Kubernetes API, as a set of mitmproxy addons.

The path of one request, and the reading order:

    client -- TLS --> kube        what is asked: RequestInfo from the canonical path
                      identity    who asks: a token, of an OIDC issuer or our own, becomes an Identity
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
    database      engine and transactions; brings the schema up to date with
    migrations    the schema, one Alembic revision after another
    sqlite        its connections to SQLite: durable
    postgres      its connections to PostgreSQL: durable, given up in time
    certificates  a small authority for the listener, where none is given; what is wrong with a peer's certificate
    metrics       figures for Prometheus
    clients       what our own HTTP clients have in common
    serving       what the processes that serve HTTP of our own have in common
    hooks         one thin mitmproxy hook class per stage; fail_closed; `holdfast serve`; flowfile, the record as a
                  mitmproxy flow file
    replay        calls told as stories, from the record
    console       the approvals API, and where tokens of our own are given; a process of its own
    witness       cosigns the checkpoints of gateways elsewhere, a process of its own
    login         how people get a token: their browser, a device code, and what is kept for kubectl
    cli           the `holdfast` command

`cli` stands over `hooks | replay | console | witness | login`, these over the stages (no stage imports another), those
over `kube`, over `settings | database | certificates | clients | metrics | serving`, over `postgres | sqlite`, over
`exchange`, over `errors`; import-linter keeps it so. Only `hooks` and `credential.layer` import mitmproxy; only
`database`, the stores and `migrations` import SQLAlchemy and Alembic.
"""

"""The approvals API: where held calls are seen and decided, and tokens of our own given.

A process of its own, never on the path of a request.

views        who may see a hold, and how it looks in JSON
decisions    a decision: checked, made durable as a record, then put into effect
tokens       tokens of our own, over HTTP: OAuth's token endpoint
refusals     why somebody was given no token: on record, and in the log now and then
saml         SAML over HTTP: logins, and assertions for the token endpoint
application  the HTTP side: routes, authentication, errors as Status
server       uvicorn over TLS; lives and dies with its parent where it has one
"""

"""The gateway's own credential, which no caller ever holds.

sources  where it comes from: a token file, a client certificate, a kubeconfig context
layer    the one place that sees it, below the flow: nothing goes upstream without a verdict
impersonation  who asks, in the headers that go beside it where the API server is to know
rights   what it must be allowed to do for that, as a role and as questions
probe    whether the API server is there, is the right one, and obeys it
"""

"""The gateway's own credential, which no caller ever holds.

sources  where it comes from: a token file, a client certificate, a kubeconfig context
layer    the one place that sees it, below the flow: nothing goes upstream without a verdict
probe    whether the API server is there, is the right one, and obeys it
"""

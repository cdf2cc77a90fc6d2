"""Kubernetes' side of a request: what is asked, and how to answer. Pure functions of bytes and text.

Reading order: canonical (one spelling for each target), request_info (what the target asks) with field_selector
(which one object a list asks for), headers (which fields go upstream) with subprotocols (the token that may be among
them), negotiation (encodings), status (refusals); then exit_status, channels and spdy, which follow an exec to its exit
code.
"""

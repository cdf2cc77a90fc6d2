"""The gateway under mitmproxy's own programs, for looking at live traffic:

    HOLDFAST_CONFIG=holdfast.yaml mitmweb  -n -s addons/gateway.py
    HOLDFAST_CONFIG=holdfast.yaml mitmdump -n -s addons/gateway.py

`-n` keeps mitmproxy from listening before the addons are in place; they open the listener themselves, where
holdfast.yaml says. In production run `holdfast serve`: the same request path on a shorter chain.
"""

from holdfast.hooks.gateway import Gateway
from holdfast.hooks.request_path import request_path
from holdfast.settings import load_settings

addons = request_path(Gateway(load_settings()))

"""For `mitmdump -s`: the gateway, sooner at its wits' end when it cannot read who is revoked."""

from holdfast.hooks.gateway import Gateway
from holdfast.hooks.request_path import request_path
from holdfast.identity import revoking
from holdfast.settings import load_settings

revoking.BLIND_SECONDS = 0.5

addons = request_path(Gateway(load_settings()))

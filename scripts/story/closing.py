"""What is said at the end: commands to go on with, while everything stays up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from story.stage import AGENT, ROOT

if TYPE_CHECKING:
    from story.stage import Stage


def describe_commands(stage: Stage) -> str:
    """Return text with commands that work as they stand, in another terminal."""
    get_pods = f"{stage.kubectl} --kubeconfig {stage.kubeconfig(AGENT)} get pods -n demo"
    return f"""
It stays up until Ctrl-C. In another terminal:

  {get_pods}
  HOLDFAST_CONFIG={stage.config_file} {ROOT}/.venv/bin/holdfast audit list --since 10m
  {ROOT}/.venv/bin/mitmweb --no-server --rfile {stage.flow_file}

Live traffic in mitmweb, with a second gateway on the same cluster; once it runs, go through that one:

  HOLDFAST_CONFIG={stage.mitmweb_config_file} {ROOT}/.venv/bin/mitmweb -n -s {ROOT}/addons/gateway.py
  {get_pods} --server {stage.mitmweb_url}
"""

"""Plays the story; see scripts/demo."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import typer

from holdfast.errors import ConfigurationError
from story.acts import Story
from story.narrator import Narrator, is_terminal
from story.stage import AGENT, ROOT, Stage
from testcluster.errors import ClusterError
from testcluster.progress import Progress


def main(
    once: Annotated[
        bool, typer.Option(help="End after the story: exit code 0 when every step came out right.")
    ] = False,
    context: Annotated[str | None, typer.Option(help="Use the cluster of this kubeconfig context.")] = None,
    kubeconfig: Annotated[Path | None, typer.Option(help="Use the cluster of this kubeconfig.")] = None,
) -> None:
    """Play Holdfast's story with a real kubectl: on a cluster of its own, or on one that you name."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    progress = Progress(sys.stdout.write, is_terminal())
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    stage = Stage(folder, progress)
    try:
        stage.set_up(kubeconfig, context)
        progress.done()
        narrator = Narrator(stage.kubectl)
        Story(stage, narrator).play()
        _close_story(narrator, stage)
        if not once:
            _stay(stage)
        code = 1 if narrator.faults else 0
    except KeyboardInterrupt:
        code = 130
    except (ClusterError, ConfigurationError, RuntimeError) as fault:
        progress.done()
        print(f"demo: {fault}", file=sys.stderr)
        code = 2
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(code)


def _close_story(narrator: Narrator, stage: Stage) -> None:
    if narrator.faults:
        print(f"\n✗ {len(narrator.faults)} steps did not come out as they must: {'; '.join(narrator.faults)}")
        for log in sorted(stage.folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-2000:]}")
    else:
        print("\n✓ every step came out as it must")


def _stay(stage: Stage) -> None:
    agent = stage.folder / f"{AGENT}.kubeconfig"
    print(
        f"""
It stays up until Ctrl-C. In another terminal:

  kubectl --kubeconfig {agent} get pods -n demo
  export HOLDFAST_CONFIG={stage.config_file}
  {ROOT}/.venv/bin/holdfast audit list --follow

Live traffic in mitmweb (a second gateway on the same cluster; give kubectl its port with --server):

  HOLDFAST_CONFIG={stage.folder}/mitmweb.yaml {ROOT}/.venv/bin/mitmweb -n -s {ROOT}/addons/gateway.py
"""
    )
    threading.Event().wait()


typer.run(main)

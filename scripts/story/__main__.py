"""Plays the story; see scripts/demo."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import typer

from holdfast.errors import ConfigurationError
from story.acts import Story
from story.closing import describe_commands
from story.narrator import Narrator, is_terminal
from story.stage import Stage
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
    # A shell's background job has SIGINT ignored, and so would every kubectl that is to be interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
    except (ClusterError, ConfigurationError, RuntimeError, subprocess.TimeoutExpired) as fault:
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
    print(describe_commands(stage), flush=True)
    threading.Event().wait()


typer.run(main)

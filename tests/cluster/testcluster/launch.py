"""Run as a script: SIGNAL PARENT COMMAND... becomes COMMAND, which gets SIGNAL when the process PARENT dies.

prctl(2), PR_SET_PDEATHSIG: kept across execve(2), and sent even where the parent had no chance to say good-bye.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1

death_signal, parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
if os.getppid() != int(parent):  # it died before we asked
    sys.exit(1)
os.execvp(command[0], command)  # noqa: S606

"""Run a command that dies with its parent: ``python launch.py PARENT_PID SIGNAL COMMAND...``.

Linux sends the named signal when the parent thread ends, and keeps that promise across ``exec``; so this asks for it and
becomes the command, under the same pid. A ``preexec_fn`` would run Python between fork and exec, which is not safe with
threads. Elsewhere than on Linux it only becomes the command, and the next ``millrace up`` clears what was left behind.
Standard library only: it is run by its path, without the package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ask for the signal, make sure the parent is still there, become the command."""
    parent, number, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


def wrapped(command: tuple[str, ...], death_signal: int = signal.SIGTERM) -> list[str]:
    """The command line that runs ``command`` as a child of this process and ends it with this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death_signal)), *command]


if __name__ == "__main__":
    main(sys.argv[1:])

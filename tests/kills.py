"""Processes that are killed at a moment of their work, not of the clock: where a file takes its name."""

import multiprocessing
import os
import signal
from pathlib import Path


def killed_at(moment, work):
    """Do `work` in a forked process that is killed just before (even moments) or just after (odd ones) its file number
    ``moment // 2`` is renamed to what it is called; the exit code, 0 where the work ended before."""

    def until_then():
        os.setpgrp()
        replace, begun = Path.replace, iter(range(10**6))

        def dying(self, target):
            number = next(begun)
            if moment == 2 * number:
                os.kill(os.getpid(), signal.SIGKILL)
            done = replace(self, target)
            if moment == 2 * number + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        Path.replace = dying
        work()
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=until_then, daemon=True)
    child.start()
    child.join()
    return child.exitcode

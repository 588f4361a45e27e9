"""The command line: ``attention-harness <runner> …``, and the same as ``python -m experiments.<runner> …``.

`runners` is the table of runners, `arguments` splits a command line, `composition` is the only file that uses Hydra,
`checks` refuses a request before torch is imported, `actions` holds what each runner does, `help` writes ``--help``,
`launch` runs one job and `multirun` many. To add a runner: a spec in `harness.config`, an action, a line in `runners`,
its config in ``conf/`` and its file in ``experiments/``.
"""

import os
import signal
import sys
from typing import NoReturn


def main(runner: str | None = None) -> NoReturn:
    """Run a runner with the settings of ``sys.argv`` (without `runner`, its first word names it), and exit.

    Exit codes: 0 done, 2 the request is wrong (one line on standard error), 1 anything else, 130 interrupted.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)  # during the imports, when no run has begun
        signal.signal(signal.SIGTERM, _leave)
    from harness.command.launch import launch

    sys.exit(launch(runner, sys.argv[1:]))


def _leave(*_: object) -> NoReturn:
    """Exit silently."""
    os._exit(130)

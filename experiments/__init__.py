"""Thin runners: ``python -m experiments.<runner> [key=value …]``."""

import os
import signal
import sys
from typing import NoReturn


def _leave(*_: object) -> NoReturn:
    """Exit silently on an interrupt during the imports, when no run has begun."""
    os._exit(130)


if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
    signal.signal(signal.SIGTERM, _leave)

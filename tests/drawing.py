"""Runs draw nothing in a test, which takes longer than all their numbers, unless the test is about what is drawn.

A test says so with the fixture `pictures`; a fixture of a whole file runs its study under ``with drawn():``, or
``with drawn(figures=False):`` where the page is enough.
"""

from contextlib import contextmanager
from functools import cache
from importlib import import_module

import pytest


@cache
def nothing_drawn():
    """From here on no run draws, but under `drawn`."""
    import_module("harness.study.record").draw = lambda run, show=None: None


@contextmanager
def drawn(figures=True):
    """Runs draw their report, and its figures."""
    nothing_drawn()
    record, views = import_module("harness.study.record"), import_module("harness.views.draw")
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr(views, "pictures", lambda run: [])
        patch.setattr(record, "draw", views.draw)
        yield

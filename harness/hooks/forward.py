"""Stop a model's forward early, or run something else in place of a module's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class StopForward(Exception):
    """Raised in a hook once what was wanted from a forward is there: the rest of it need not run."""


def run_until_stop(forward: Callable[[], Any], handles: Sequence[Any]) -> bool:
    """Run a forward up to a `StopForward` or to its end, remove the hooks, and return whether it was stopped."""
    try:
        forward()
    except StopForward:
        return True
    finally:
        for handle in handles:
            handle.remove()
    return False


@contextmanager
def removing(handles: Sequence[Any]) -> Iterator[None]:
    """Remove torch hooks at the end of this context."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """While this lasts, each of these torch modules runs another function as its forward; nested, the innermost one.

    The function is put into the module's own dictionary, since a bridge hands what is set on it to the module it wraps.
    """
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module, forward in before.items():
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward

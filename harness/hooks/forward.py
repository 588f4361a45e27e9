"""Stop a model's forward early, or run something else in place of a module's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class StopForward(Exception):
    """Raised in a hook to end a forward whose remaining modules are not needed."""


def run_until_stop(forward: Callable[[Any], Any], inputs: Any, handles: Sequence[Any], must_stop: bool = True) -> None:
    """Run a forward up to a `StopForward` in one of its hooks, and remove the hooks. Raises `RuntimeError` where it ran
    to its end and `must_stop`."""
    with removing(handles):
        try:
            forward(inputs)
        except StopForward:
            return
    if must_stop:
        raise RuntimeError("the model's forward ended without passing the hook that stops it")


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
    """Replace the forwards of torch modules inside the context; of nested replacements the innermost runs."""
    # Through the module's own dictionary: a bridge passes attributes on to the module that it wraps.
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

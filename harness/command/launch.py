"""Launch a runner: from a command line to an exit code."""

import os
import shlex
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness import config
from harness.command import help
from harness.command.arguments import Arguments, parse_arguments
from harness.command.runners import RUNNERS
from harness.command.terminal import format_warning, tell
from harness.config import RequestError

if TYPE_CHECKING:
    from harness.command.composition import Composer

COMMAND = "attention-harness"
_EXPERIMENTS = "experiments"  #: The package of the runners, which lists them when it is run itself.


def launch(runner: str | None, words: Sequence[str]) -> int:
    """Run the command line of a runner (without one, the first word names it), and return its exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.filterwarnings("ignore", message="resource_tracker")
    warnings.formatwarning = format_warning
    return guarded(lambda: _launch(runner, words), program(runner or "".join(words[:1]), runner is None))


def program(runner: str, as_command: bool) -> str:
    """Return how this process was called, up to the runner, to be pasted into a shell.

    >>> program("study", as_command=False)
    'python -m experiments.study'
    """
    if as_command and _EXPERIMENTS in sys.orig_argv:  # python -m experiments
        return shlex.join([*sys.orig_argv[: sys.orig_argv.index(_EXPERIMENTS) + 1], *filter(None, [runner])])
    if as_command:
        here = sys.argv[0] if shutil.which(COMMAND) != sys.argv[0] else COMMAND
        return f"{shlex.quote(here)} {runner}"
    module = f"experiments.{runner}"
    started = sys.orig_argv[: sys.orig_argv.index(module) + 1] if module in sys.orig_argv else ["python", "-m", module]
    return shlex.join(started)


def guarded(work: Callable[[], int | None], program: str, job: str = "") -> int:
    """Run `work` and return its exit code (default 0); print a wrong request as one line that begins with `job`, and
    after an interrupt the command line that goes on."""
    try:
        return work() or 0
    except RequestError as error:
        tell(f"{job}{error}")
        return 2
    except KeyboardInterrupt as stop:
        line = _going_on(program, getattr(stop, "settings", {}))  # of `harness.study.Interrupted`
        tell("\n" * sys.stderr.isatty() + f"{job}interrupted{line}")
        return 130


def _going_on(program: str, settings: dict[str, str]) -> str:
    if not settings:
        return ""
    from harness.command.composition import setting

    return f"; to go on: {program} {shlex.join(setting(key, value) for key, value in settings.items())}"


def _launch(runner: str | None, words: Sequence[str]) -> int:
    as_command = runner is None
    if runner is None:
        if words[:1] in (["-sc"], ["--shell-completion"]):
            words = [*_completed_runner(), *words]
        if words[:1] in ([], ["-h"], ["--help"], ["--version"], ["-sc"], ["--shell-completion"]):
            return _answer_without_runner(words[0] if words else "--help")
        runner, words = words[0], words[1:]
        if runner not in RUNNERS:
            raise RequestError("runner", runner, config.near(runner, tuple(RUNNERS)))
    arguments = parse_arguments(words)
    if arguments.flags["help"]:
        print(help.help_text(runner, program(runner, as_command), arguments.settings), flush=True)
        return 0
    if arguments.flags["version"]:
        return _print_version()
    from harness.command.composition import Composer

    composer = Composer.of(runner, arguments)
    if arguments.for_hydra:
        return _through_hydra(composer, arguments)
    if arguments.flags["multirun"]:
        from harness.command.multirun import run_jobs

        return run_jobs(runner, composer, program(runner, as_command))
    from harness.command.checks import checked

    show(checked(runner, composer.values(), composer.named()).act())
    return 0


def show(path: Any) -> None:
    """Print the path of what was made, if there is one, as the last line on standard output."""
    if path is not None:
        print(path, flush=True)


def _answer_without_runner(flag: str) -> int:
    """Print what a flag without a runner is for, the list of runners or the version; nothing is left to complete."""
    if flag in ("-h", "--help"):
        print(help.overview(program("", True) if _EXPERIMENTS in sys.orig_argv else COMMAND), flush=True)
    elif flag == "--version":
        return _print_version()
    return 0


def _completed_runner() -> list[str]:
    """Return the runner in the line that a shell completes, and take it out of that line, which Hydra then completes.
    Empty where there is nothing to complete, or where it is the runner itself, whose names are printed."""
    program, _, rest = os.environ.get("COMP_LINE", f"{COMMAND} study ").partition(" ")
    runner, there, rest = rest.lstrip().partition(" ")
    if not there:
        print(*RUNNERS, flush=True)
        return []
    os.environ["COMP_LINE"] = f"{program} {rest}"
    return [runner] if runner in RUNNERS else []


def _print_version() -> int:
    from harness import __version__

    print(f"{COMMAND} {__version__}", flush=True)
    return 0


def _through_hydra(composer: "Composer", arguments: Arguments) -> int:
    """Let Hydra answer ``--cfg job`` and the like; nothing is run."""
    if arguments.flags["cfg"]:
        composer.values()  # so that what is wrong is one line
    composer.through_hydra(lambda *_: None)
    return 0

"""``python -m experiments.<runner>`` in a process of its own, without the six seconds in which it imports torch.

The process is forked from a server that has imported the libraries, not this package: standard output and error,
arguments, environment, working directory, signals and exit code are those of a fresh one. What only a fresh process can
show (imports, start-up) is tested with ``subprocess`` in a few tests that are marked ``launch``.
"""

import array
import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: The libraries that take the time.
HEAVY = ("torch", "transformer_lens.model_bridge", "matplotlib.figure", "harness.study", "harness.findings.questions")
LIGHT = ("hydra", "omegaconf", "pydantic", "yaml")


@dataclass
class TurnResult:
    """How a command ended: ``returncode`` is negative for a signal, ``imported`` names the packages it had imported."""

    returncode: int
    stdout: str
    stderr: str
    imported: set[str] = field(default_factory=set)


class Launcher:
    """Starts commands, one at a time. `preloaded` is what the process that they are forked from has imported."""

    def __init__(self, preloaded=(*LIGHT, *HEAVY)):
        self._line, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            command = [sys.executable, __file__, str(there.fileno()), *preloaded]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._server = subprocess.Popen(
                command, cwd=ROOT, env=environment, pass_fds=[there.fileno()], stdin=subprocess.DEVNULL,
                preexec_fn=_hear_interrupts,
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._line.close()
        self._server.wait()

    def run(self, module, *arguments, cwd=ROOT, env=None):
        """Run a command to its end."""
        return self.start(module, *arguments, cwd=cwd, env=env).end()

    def python(self, code, *arguments, env=None):
        """Run ``python -c code arguments`` to its end."""
        return self.start(None, *arguments, env=env, code=code).end()

    def start(self, module, *arguments, cwd=ROOT, env=None, code=None):
        """Start a command."""
        pipes = [os.pipe() for _ in range(3)]
        asked = {
            "module": module,
            "code": code,
            "arguments": arguments,
            "cwd": str(cwd),
            "env": dict(env or os.environ),
        }
        ends = array.array("i", [there for _, there in pipes])
        self._line.sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)])
        for end in ends:
            os.close(end)
        pid = json.loads(self._line.recv(100))
        return Started(self._line, pid, *(os.fdopen(here, encoding="utf-8") for here, _ in pipes))


class Started:
    """A command that runs: `stdout` and `stderr` can be read as it goes on."""

    def __init__(self, line, pid, stdout, stderr, imported):
        self._line, self.pid, self.stdout, self.stderr, self._imported = line, pid, stdout, stderr, imported

    def send_signal(self, number):
        os.kill(self.pid, number)

    def end(self):
        """Wait for it. What it writes is read in one go each: less than a pipe holds of standard error."""
        with self.stdout, self.stderr, self._imported:
            out, err, imported = (stream.read() for stream in (self.stdout, self.stderr, self._imported))
        return TurnResult(json.loads(self._line.recv(100)), out, err, {*imported.split()})


def _hear_interrupts():
    """A command started in the background of a script has SIGINT ignored, and would never hear it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _serve(line, preloaded):
    """Fork a process for each command that is asked for, and tell its process id and then its exit code."""
    for name in preloaded:
        import_module(name)
    gc.freeze()  # a collection would touch, and so copy, every page that is shared with the commands
    while True:
        asked, ends, *_ = socket.recv_fds(line, 1 << 20, 3)
        if not asked:
            return
        pid = os.fork()
        if pid == 0:
            line.close()
            _become(json.loads(asked), *ends)
        for end in ends:
            os.close(end)
        line.send(json.dumps(pid).encode())
        _, status = os.waitpid(pid, 0)
        line.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())


def _become(asked, stdout, stderr, imported):
    """What ``python -m module arguments`` would be in that directory with that environment."""
    os.dup2(stdout, 1), os.dup2(stderr, 2), os.close(stdout), os.close(stderr)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    paths = [each for each in asked["env"].get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:1] = [asked["cwd"], *paths]
    sys.argv = ["-m" if asked["module"] else "-c", *asked["arguments"]]
    code = 0
    try:
        if asked["code"]:
            exec(asked["code"], {"__name__": "__main__"})
            sys.exit()
        import_module(asked["module"].rpartition(".")[0])  # as -m does, before it says what is run
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    os.write(imported, " ".join({name.partition(".")[0] for name in sys.modules}).encode())
    atexit._run_exitfuncs()
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)  # taking the interpreter apart would copy every page that is shared with the server


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as line:
        _serve(line, sys.argv[2:])

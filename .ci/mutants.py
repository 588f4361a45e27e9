"""Change the code on purpose and see whether a test notices: mutation testing, outside CI.

    make mutants N=60 SEED=0          60 changes drawn at random from the rooms below
    make mutants FAULTS=named         the faults in .ci/faults.py, each with the tests that must see it
    make mutants ... ARGS=--thorough  run what survives once more, with every test that reaches the changed lines

Everything happens in a copy of the tree. The first run collects which tests execute which lines (as long as `make
test-quick` takes, twice on one core) and keeps it in .mutants/; later runs collect again only for test files that
changed. The libraries are imported once; for each mutant a process is forked that imports the changed package, runs the
tests of the changed lines, quickest files first, and stops at the first failure, or after 40 processor seconds. A test
that fails without the change too is set aside. Not changed are texts, types, messages of errors, numbers in figures,
floats that guard against rounding, the ``strict`` of a zip, and the sign of -1 (an axis). Interrupt it at
will: the same command goes on where it was.
"""

import argparse
import ast
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".mutants"
ROOMS = ("sweep", "ablation", "stats", "metrics.py", "attribution", "results", "views")
LAID_OUT = (
    "harness/views/figures/"  # inches, points and line widths are looked at, not tested: numbers stay as they are
)
ROUNDING = 1e-6  # floats up to this size keep rounding or a zero from being divided by: twice as much does the same
QUICK = "not soak and not smollm2 and not browser and not launch"
LIMIT, THOROUGH_LIMIT = 40, 900  # processor seconds for one mutant; of the clock `PATIENCE` times as many
PATIENCE = 5
BUDGET = 15.0  # seconds that the tests of one mutant took unchanged, at most; --thorough runs the rest
PRELOADED = (
    *("torch", "transformer_lens.model_bridge", "transformers", "pandas", "xarray", "zarr", "scipy.stats", "hydra"),
    *("matplotlib.figure", "pydantic", "hypothesis", "pytest", "circuitsvis", "huggingface_hub", "regex"),
)

# --- mutants ------------------------------------------------------------------------------------------------------

OPERATORS = {
    **{"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "and": "or", "or": "and"},
    **{"in": "not in", "not in": "in", "is": "is not", "is not": "is", "&": "|", "|": "&", "**": "*"},
    **{"+": "-", "-": "+", "*": "/", "/": "*", "//": "%", "%": "//", "<<": ">>", ">>": "<<"},
}
NAMES = {"min": "max", "any": "all", "argmin": "argmax", "minimum": "maximum", "floor": "ceil", "triu": "tril"}
NAMES |= {after: before for before, after in NAMES.items()}
_OPERATOR = re.compile(r"not\s+in|is\s+not|\*\*|//|<<|>>|[<>=!]=|[-+*/%&|<>]|\b(?:in|is|and|or)\b")


@dataclass(frozen=True)
class Mutant:
    """One change of a file: the bytes from `start` to `end` become `after`. `lines` are those that it touches."""

    file: str
    start: int
    end: int
    before: str
    after: str
    lines: tuple[int, ...] = ()
    tests: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}:{self.lines[0]}: {' '.join(self.before.split())} → {' '.join(self.after.split())}"

    @property
    def key(self) -> str:
        return f"{self.file} {self.start} {self.end} {self.after}"

    def changed(self, source: bytes) -> bytes:
        return source[: self.start] + self.after.encode() + source[self.end :]


class Source:
    """A file, and every change of it that one could make by mistake."""

    def __init__(self, file: str):
        self.file, self.bytes = file, (ROOT / file).read_bytes()
        self._starts = [0]
        for line in self.bytes.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        yield from self._of(ast.parse(self.bytes), ())

    def _of(self, node: ast.AST, around: tuple[int, ...]) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt):
            around = (node.lineno,)
        for start, end, after in self._changes(node):
            lines = range(self._line(start), self._line(max(start, end - 1)) + 1)
            before = self.bytes[start:end].decode()
            if before != after:
                yield Mutant(self.file, start, end, before, after, tuple(dict.fromkeys([*lines, *around])))
        for child in _children(node):
            yield from self._of(child, around)

    def _changes(self, node: ast.AST) -> Iterator[tuple[int, int, str]]:
        match node:
            case ast.Compare(left=left, comparators=others):
                yield from (change for pair in pairwise([left, *others]) for change in self._between(*pair))
            case ast.BoolOp(values=values):
                yield from (change for pair in pairwise(values) for change in self._between(*pair))
            case ast.BinOp(left=left, right=right) | ast.AugAssign(target=left, value=right):
                yield from self._between(left, right)
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1)):
                pass  # the last of two axes is axis 1; the 1 itself becomes 2
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                yield *self._span(node), self._text(operand)
            case ast.Constant(value=bool() | int() | float() as value) if not self._is_looked_at(value):
                changed = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 2
                yield *self._span(node), repr(changed if changed != value else 1.0)
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
                end = self._span(node)[1]
                yield end - len(name), end, NAMES[name]
            case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Subscript()]) | ast.AugAssign():
                yield *self._span(node), "pass"
        if isinstance(test := getattr(node, "test", None), ast.expr):
            yield *self._span(test), f"(not ({self._text(test)}))"

    def _is_looked_at(self, value: float) -> bool:
        """Whether a number is of a layout, or guards against rounding."""
        return self.file.startswith(LAID_OUT) or (isinstance(value, float) and 0 < value <= ROUNDING)

    def _between(self, left: ast.AST, right: ast.AST) -> Iterator[tuple[int, int, str]]:
        """The operator between two operands becomes another."""
        start, end = self._span(left)[1], self._span(right)[0]
        if found := _OPERATOR.search(self.bytes[start:end].decode()):
            yield start + found.start(), start + found.end(), OPERATORS[" ".join(found[0].split())]

    def _span(self, node) -> tuple[int, int]:
        starts = self._starts
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        return self.bytes[slice(*self._span(node))].decode()

    def _line(self, offset: int) -> int:
        return self.bytes.count(b"\n", 0, offset) + 1


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """What of a node may be changed: no types, texts, messages of errors, nor what only type checkers read; nor the
    ``strict`` of a zip, which like an assertion refuses what cannot be."""
    skipped = {"annotation", "returns", "decorator_list"}
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            alias = isinstance(node, ast.Module) and isinstance(child, ast.Assign) and not _is_number(child.value)
            checked = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
            told = isinstance(child, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom)
            if isinstance(child, ast.AST) and name not in skipped and not (alias or checked or told):
                yield child


def _is_number(value: ast.expr) -> bool:
    return all(isinstance(part, ast.Constant | ast.BinOp | ast.operator) for part in ast.walk(value))


def drawn(n: int, seed: int) -> list[Mutant]:
    """The first `n` of all mutants in a random order."""
    paths = [path for room in ROOMS for path in sorted((ROOT / "harness" / room).rglob("*.py"))]
    paths += [ROOT / "harness" / room for room in ROOMS if room.endswith(".py")]
    every = [mutant for path in paths for mutant in Source(path.relative_to(ROOT).as_posix()).mutants()]
    return random.Random(seed).sample(every, min(n, len(every)))


def named() -> list[Mutant]:
    """The faults of .ci/faults.py. One whose code is gone, or is there twice, is an error."""
    sys.path.insert(0, str(ROOT / ".ci"))
    from faults import FAULTS

    found = []
    for fault in FAULTS:
        source, before = (ROOT / fault.file).read_bytes(), fault.before.encode()
        if (count := source.count(before)) != 1:
            sys.exit(f"fault {fault.name!r}: its code is {count} times in {fault.file}; write it anew in .ci/faults.py")
        at = source.index(before)
        line = source.count(b"\n", 0, at) + 1
        found.append(Mutant(fault.file, at, at + len(before), fault.before, fault.after, (line,), fault.tests))
    return found


# --- which tests reach a line -------------------------------------------------------------------------------------


@dataclass
class Reach:
    """For each line of each file the tests that execute it, and how long each test takes."""

    seconds: dict[str, float]
    by_line: dict[str, dict[int, list[str]]]

    def of(self, mutant: Mutant) -> list[str]:
        """The tests for a mutant, quickest files first: those that reach its lines (where a fixture does, all tests of
        the file), or those of the file that is changed if its lines run at import only."""
        lines = self.by_line.get(mutant.file, {})
        contexts = {context for line in mutant.lines for context in lines.get(line, ()) if context}
        if not contexts and any(line in lines for line in mutant.lines):
            contexts = {context for every in lines.values() for context in every if context}
        whole = {_file(context) for context in contexts if context.endswith("|setup")}
        tests = {context.rpartition("|")[0] for context in contexts if context.endswith("|run")} & {*self.seconds}
        tests |= {test for test in self.seconds if _file(test) in whole}
        return self.in_order(tests)

    def in_order(self, tests: set[str]) -> list[str]:
        total: dict[str, float] = {}
        for test in tests:
            total[_file(test)] = total.get(_file(test), 0) + self.seconds[test]
        return sorted(tests, key=lambda test: (total[_file(test)], _file(test), self.seconds[test]))

    def within(self, tests: list[str], budget: float) -> list[str]:
        """As many tests as take `budget` seconds, the quickest of each file first."""
        chosen, spent = set(), 0.0
        for test in sorted(tests, key=self.seconds.__getitem__):
            spent += self.seconds[test]
            if chosen and spent > budget:
                break
            chosen.add(test)
        return [test for test in tests if test in chosen]


def _file(test: str) -> str:
    return test.partition("::")[0]


def digests() -> dict[str, str]:
    """Of each test file, and under the empty name of everything else that tests run."""
    found, rest = {}, hashlib.sha256()
    for path in sorted([*ROOT.glob("harness/**/*.py"), *ROOT.glob("tests/*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if path.name.startswith("test_"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            rest.update(name.encode() + path.read_bytes())
    return {"": rest.hexdigest(), **found}


def reach(tree: Path) -> Reach:
    """Collected anew where the code or a test file changed."""
    from coverage import CoverageData

    KEPT.mkdir(exist_ok=True)
    data, times, state = KEPT / "coverage", KEPT / "seconds.json", KEPT / "state.json"
    old = json.loads(state.read_text()) if state.exists() and data.exists() else {}
    seconds = json.loads(times.read_text()) if old else {}
    new = digests()
    stale = [name for name, digest in new.items() if name and (old.get("") != new[""] or old.get(name) != digest)]
    if stale:
        print(f"collecting which lines {len(stale)} test files execute", flush=True)
        if old.get("") != new[""]:
            data.unlink(missing_ok=True)
            seconds = {}
        made, rc = tree / "seconds.json", tree / "coveragerc"
        rc.write_text(f"[run]\nsource = harness\nrelative_files = true\ndata_file = {data}\n")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "mutants", "-n", "2", "--dist", "loadfile", "-m", QUICK]
        command += ["--cov", "--cov-config", str(rc), "--cov-context=test", "--cov-append", "--cov-report=", *stale]
        path = f"{tree}:{tree / '.ci'}"
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MUTANTS_SECONDS": str(made)}
        subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=False)
        seconds = {test: each for test, each in seconds.items() if _file(test) not in stale}
        times.write_text(json.dumps(seconds | json.loads(made.read_text())))
        state.write_text(json.dumps(new))
    database = CoverageData(str(data))
    database.read()
    by_line = {_inside(name): database.contexts_by_lineno(name) for name in database.measured_files()}
    return Reach(json.loads(times.read_text()), by_line)


def _inside(name: str) -> str:
    return name[name.rindex("harness/") :]


_seconds: dict[str, float] = {}


def pytest_runtest_logreport(report) -> None:
    """As pytest's plugin: how long each test took that passed."""
    if report.when == "setup" or report.nodeid in _seconds:
        _seconds[report.nodeid] = _seconds.get(report.nodeid, 0) + report.duration
    if not report.passed:
        _seconds.pop(report.nodeid, None)


def pytest_sessionfinish(session) -> None:
    if (path := os.environ.get("MUTANTS_SECONDS")) and not hasattr(session.config, "workerinput"):
        Path(path).write_text(json.dumps(_seconds))


# --- running tests on a mutant ------------------------------------------------------------------------------------


@dataclass(eq=False)
class Chosen:
    """pytest's plugin in the forked process: these tests in this order, and the first that fails is written down."""

    tests: Sequence[str]
    failed: Path

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items) -> None:
        place = {test: number for number, test in enumerate(self.tests)}
        ids = {item: item.nodeid if item.nodeid in place else item.nodeid.partition("[")[0] for item in items}
        ids = {item: each if each in place else _file(each) for item, each in ids.items()}
        items[:] = sorted((item for item in items if ids[item] in place), key=lambda item: place[ids[item]])

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed and not self.failed.exists():
            self.failed.write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport

    def pytest_runtest_logstart(self) -> None:
        self.failed.with_name("began").write_text(str(time.process_time()))


@dataclass
class Bench:
    """A copy of the tree in which mutants are tried, one at a time."""

    tree: Path
    unsound: set[str] = field(default_factory=set)
    sound: set[str] = field(default_factory=set)

    def fate(self, mutant: Mutant, tests: Sequence[str], limit: int) -> tuple[str, str]:
        """`killed` with the test that saw it, or `time-out` (a test that does not end), `survived`, `not reached`."""
        path = self.tree / mutant.file
        source = path.read_bytes()
        while tests := [test for test in tests if test not in self.unsound]:
            path.write_bytes(mutant.changed(source))
            try:
                fate, why = self.run(tests, limit)
            finally:
                path.write_bytes(source)
            if fate != "killed" or why in self.sound:
                return fate, why
            if self.run([why] if why else tests, limit)[0] == "survived":
                self.sound |= {why} if why else set()
                return fate, why
            print(f"  {why or tests} fails without a change too: set aside", flush=True)
            self.unsound |= {why, why.partition("[")[0]} if why else {*tests}
        return "not reached", ""

    def run(self, tests: Sequence[str], limit: int) -> tuple[str, str]:
        failed, began = self.tree / "failed", self.tree / "began"
        failed.unlink(missing_ok=True)
        began.write_text("0")
        sys.stdout.flush()
        child = os.fork()
        if not child:
            self._child(tests, failed, limit)
        stop = time.monotonic() + PATIENCE * limit
        try:
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > stop:
                    return _of_time(began, limit)
                time.sleep(0.05)
        finally:
            for one in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(child, one)
                except ProcessLookupError:
                    break
            if not ended[0]:
                os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(ended[1])
        if code == -signal.SIGXCPU:
            return _of_time(began, limit)
        if code in (0, 5):
            return ("survived", "") if code == 0 else ("not reached", "")
        return "killed", failed.read_text() if failed.exists() else ""

    def _child(self, tests: Sequence[str], failed: Path, limit: int) -> None:
        code = 3
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            os.chdir(self.tree)
            out = os.open(self.tree / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.path.insert(0, str(self.tree))
            os.environ["PYTHONPATH"] = str(self.tree)
            files = list(dict.fromkeys(map(_file, tests)))
            arguments = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", *files]
            arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what was imported before
            code = int(pytest.main(arguments, plugins=[Chosen(tests, failed)]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _of_time(began: Path, limit: int) -> tuple[str, str]:
    """The fate where time ran out: a test that took most of it would not end; else there were too many tests."""
    return ("time-out", "") if float(began.read_text()) < limit / 2 else ("survived", "not all tests, for time")


def copied(tree: Path) -> None:
    """What git knows or would, with byte code that is checked against the source and not against its time."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "harness"]
    subprocess.run([sys.executable, *compiled], cwd=tree, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--named", action="store_true", help="the faults of .ci/faults.py")
    parser.add_argument("--thorough", action="store_true", help="survivors meet every test that reaches them")
    asked = parser.parse_args()
    mutants = named() if asked.named else drawn(asked.n, asked.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copied(tree := Path(folder))
        known = Reach({}, {}) if asked.named else reach(tree)
        for name in PRELOADED:
            __import__(name)
        kept = KEPT / f"{'named' if asked.named else asked.seed}-{digests()[''][:12]}.json"
        KEPT.mkdir(exist_ok=True)
        fates = tried(mutants, known, Bench(tree), kept, asked.thorough)
    return told(mutants, fates)


def tried(mutants: list[Mutant], known: Reach, bench: Bench, kept: Path, thorough: bool) -> dict[str, list[str]]:
    """The fate of each mutant. What was killed before is not tried again, nor what survived the same tests."""
    fates = json.loads(kept.read_text()) if kept.exists() else {}
    tests_digest = hashlib.sha256(json.dumps(digests()).encode()).hexdigest()[:12] + str(thorough)
    for number, mutant in enumerate(mutants, 1):
        fate, why, digest = fates.get(mutant.key, ["", "", ""])
        if digest != tests_digest and (mutant.tests or fate not in ("killed", "time-out")):
            every = list(mutant.tests) or known.of(mutant)
            fate, why = bench.fate(mutant, every if mutant.tests else known.within(every, BUDGET), LIMIT)
            if fate == "survived" and thorough and not mutant.tests:
                fate, why = bench.fate(mutant, every, THOROUGH_LIMIT)
            fates[mutant.key] = [fate, why, tests_digest]
            kept.write_text(json.dumps(fates))
        print(f"{number:3} {fate:11} {mutant}{'  by ' + why if why else ''}", flush=True)
    return fates


def told(mutants: list[Mutant], fates: dict[str, list[str]]) -> int:
    """The table; the exit code is 1 where a mutant survived."""
    by_fate: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        by_fate.setdefault(fates[mutant.key][0], []).append(mutant)
    print()
    for fate in ("time-out", "survived", "not reached"):
        for mutant in by_fate.get(fate, ()):
            print(f"{fate:11}  {mutant}")
    killed = len(by_fate.get("killed", ())) + len(by_fate.get("time-out", ()))
    counts = ", ".join(f"{len(each)} {fate}" for fate, each in sorted(by_fate.items()))
    print(f"{killed} of {len(mutants)} killed ({100 * killed / len(mutants):.0f} %): {counts}")
    return int(killed < len(mutants))


if __name__ == "__main__":
    sys.exit(main())

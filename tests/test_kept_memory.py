"""Freed memory is kept while a run computes, and returned afterwards, where the C library is glibc."""

import resource
import subprocess
import sys

import pytest

import harness
from harness.execute import kept_memory
from harness.execute.kept_memory import memory_kept

SIZE = 64 * 2**20
TIMES = 8
#: Page faults of making and freeing large arrays: as it is, with `keep` false, and kept; then what is returned.
COUNT = f"""
import ctypes, importlib.util, resource
spec = importlib.util.spec_from_file_location("kept", {kept_memory.__file__!r})
kept = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kept)
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({TIMES}):
        place = library.malloc({SIZE})
        ctypes.memset(place, 1, {SIZE})
        library.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(faults())
with kept.memory_kept(False):
    print(faults())
with kept.memory_kept():
    print(faults())
    held = resident()
print(held - resident())
"""

needs_glibc = pytest.mark.skipif(kept_memory._glibc() is None, reason="the C library is not glibc")


@needs_glibc
def test_large_arrays_take_their_pages_once_and_give_them_back_at_the_end():
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    plain, off, kept, returned = map(int, done.stdout.split())
    once = SIZE / resource.getpagesize()
    assert min(plain, off) > 0.9 * TIMES * once
    assert kept < 1.2 * once
    assert returned > 0.9 * SIZE


class Library:
    """A C library that notes what it is asked."""

    def __init__(self):
        self.asked = []

    def mallopt(self, name, value):
        self.asked.append((name, value))

    def malloc_trim(self, pad):
        self.asked.append("trim")


@pytest.fixture
def library(monkeypatch):
    made = Library()
    monkeypatch.setattr(kept_memory, "_glibc", lambda: made)
    return made


ASKED = [(-4, 0), (-1, -1), (-2, 2**26), (-4, 65_536), (-3, 2**25), (-1, 2**26), (-2, 2**17), "trim"]


@pytest.mark.parametrize(("key", "asked"), [((), ASKED), (("execute.keep_memory=false",), [])])
def test_a_run_keeps_memory_until_its_stages_are_done(key, asked, library, command):
    code, _, err = command("ablate_heads", "model=random", "prompts.n=2", *key)
    assert (code, library.asked) == (0, asked), err


def test_it_ends_with_an_error_too(library):
    with pytest.raises(ZeroDivisionError), memory_kept():
        raise ZeroDivisionError
    assert library.asked == ASKED


def test_a_sweep_in_memory_keeps_it_too(library, tiny):
    model = tiny()
    harness.ablate_heads(model, harness.load_prompts("ioi", model, n=2), metrics="loss", heads=["L0H0"])
    assert library.asked == ASKED


def test_elsewhere_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(kept_memory, "_glibc", lambda: None)
    with memory_kept():
        pass

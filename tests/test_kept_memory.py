"""Freed memory is kept while a run computes, and returned afterwards, where the C library is glibc."""

import resource

import psutil
import pytest
import torch

import harness
from harness.execute import kept_memory
from harness.execute.kept_memory import memory_kept

SIZE = 64 * 2**20
TIMES = 8

needs_glibc = pytest.mark.skipif(kept_memory._glibc() is None, reason="the C library is not glibc")


def page_faults():
    """Page faults of making and freeing large tensors."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(TIMES):
        torch.ones(SIZE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_large_tensors_take_their_pages_once():
    once = SIZE / resource.getpagesize()
    plain = page_faults()
    with memory_kept(False):
        off = page_faults()
    with memory_kept():
        kept = page_faults()
    if plain < 2 * once:
        pytest.skip("this machine maps large tensors in huge pages")
    assert min(plain, off) > 0.9 * TIMES * once
    assert kept < 1.2 * once


@needs_glibc
def test_memory_is_returned_at_the_end():
    process = psutil.Process()
    with memory_kept():
        page_faults()
        held = process.memory_info().rss
    assert held - process.memory_info().rss > 0.9 * SIZE


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

"""attention-harness: which attention heads a model needs, what they look at, and whether the two agree.

The public names are loaded on first use (PEP 562), so that ``import harness`` costs nothing and opening a
saved run never imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0.dev0"

_HOME = {
    "Head": "hooks",
    "RequestError": "config",
    "load_model": "models",
    "load_prompts": "prompts",
    "cache_attention": "interactive.compute",
    "ablate_heads": "interactive.compute",
    "compare_attributions": "interactive.compute",
    "ablated": "ablation.ablation_context",
    "zero": "ablation.head_ablation",
    "mean": "ablation.head_ablation",
    "resample": "ablation.head_ablation",
    "patch": "ablation.head_ablation",
    "scale": "ablation.head_ablation",
    "open_run": "results",
    "open_runs": "compare.many_runs",
    "look": "interactive.make_look",
}
_ROOMS = ("attribution", "findings", "metrics", "results", "stats", "views", "words")

__all__ = [*_HOME, *_ROOMS]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from harness.ablation.ablation_context import ablated as ablated
    from harness.ablation.head_ablation import mean as mean
    from harness.ablation.head_ablation import patch as patch
    from harness.ablation.head_ablation import resample as resample
    from harness.ablation.head_ablation import scale as scale
    from harness.ablation.head_ablation import zero as zero
    from harness.compare.many_runs import open_runs as open_runs
    from harness.config import RequestError as RequestError
    from harness.hooks import Head as Head
    from harness.interactive.compute import ablate_heads as ablate_heads
    from harness.interactive.compute import cache_attention as cache_attention
    from harness.interactive.compute import compare_attributions as compare_attributions
    from harness.interactive.make_look import look as look
    from harness.models import load_model as load_model
    from harness.prompts import load_prompts as load_prompts
    from harness.results import open_run as open_run


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"harness.{_HOME[name]}"), name)
    if name in _ROOMS:
        return import_module(f"harness.{name}")
    raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""attention-harness: which attention heads a model needs, what they look at, and whether the two agree.

First calls, each of which shows itself in a notebook (and ``.save("head.svg")``, .png, .pdf or .html):

    model = harness.load_model("minilm")              # or smollm2, a hub id, a folder, a Hugging Face model in memory
    seen = harness.look(model, "The dog chased the cat", "It ran away")      # a text; a pair for encoders like minilm
    seen.head("L5H1")                                 # heatmap of one head; head("L5") of its layer's mean
    seen.grid(layer=5)                                # every head of a layer
    seen.lines(layer=5)                               # head view: the pair twice, a line for each weight
    seen.all_heads()                                  # model view: every head of every layer
    seen.table("L5H1")                                # the numbers, as a pandas DataFrame; rows sum to 1
    seen.follow("chased", ["dog", "cat"])             # one word's attention to others, by head and by layer
    seen.rollout(start_layer=2, discard_ratio=0.1)    # attention rollout
    seen.saliency()                                   # the text coloured by its gradient
    seen.head("mean"), seen.head("L5H1")              # the mean of all heads beside one
    harness.look(model, "犬が猫を追う")                # Japanese, by word

The names:

    load_model           load a hooked model, checked against the plain Hugging Face model
    load_prompts         load a prompt set by name, or texts, a DataFrame or token ids
    look                 every view of one text's attention; also of a saved run
    cache_attention      every head's attention pattern on prompts, as labelled arrays
    ablate_heads         ablate heads and measure what that costs, with intervals and tests
    compare_attributions rollout and other token attributions beside measured causes
    compare_texts        what the model writes with heads ablated, beside what it writes with all of them
    bake                 a checkpoint with heads ablated in its weights, as a Hugging Face folder
    ablated              keep heads ablated in every forward inside a context
    zero mean resample patch scale     ablations of heads as values, for the two above
    open_run             open a saved run, without model and torch
    Head                 a head, written L5H1: layer and number, from zero
    RequestError         what every wrong request raises: the key, the value, and what would be right
    attribution findings metrics results stats views words     rooms of functions on arrays and runs

The public names are loaded on first use (PEP 562), so that ``import harness`` costs nothing and opening a saved run
never imports torch.

>>> import harness
>>> sorted({"look", "load_model", "open_run"} - {*dir(harness)})
[]
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

_HOME = {
    "Head": "hooks",
    "RequestError": "config",
    "load_model": "models",
    "load_prompts": "prompts",
    "cache_attention": "interactive.compute",
    "ablate_heads": "interactive.compute",
    "compare_attributions": "interactive.compute",
    "compare_texts": "behaviour.texts",
    "bake": "behaviour.bake",
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
    from harness.behaviour.bake import bake as bake
    from harness.behaviour.texts import compare_texts as compare_texts
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

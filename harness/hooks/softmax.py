"""Read or edit the input of each attention's softmax in the model's own forward.

TransformerLens's `hook_attn_scores` carries the scores in most decoders, the pattern in GPT-J, GPT-Neo, OPT and BERT,
and neither in T5. The softmax's input is the same in every family, so the call itself is intercepted, with a
`TorchFunctionMode`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness.hooks import Site, attention_module

#: [row, head, query, key] to the same. A model with a learnt sink has one column more, the sink's.
Edit = Callable[[Tensor], Tensor]

_SOFTMAX = {torch.nn.functional.softmax, torch.softmax, Tensor.softmax}


@contextmanager
def at_softmax(bridge: Any, edits: Mapping[Site, Edit]) -> Iterator[set[Site]]:
    """Apply `edits` to the softmax input [row, head, query, key] of these attentions inside the context.

    Yields the attentions whose softmax has run, so that a caller can detect an edit that never took effect.
    """
    mode = _AtSoftmax(edits, bridge.cfg.n_heads)
    handles = []
    for site in edits:
        module = attention_module(bridge, site)
        handles.append(module.register_forward_pre_hook(lambda *_, site=site: mode.enter(site)))
        handles.append(module.register_forward_hook(lambda *_: mode.enter(None)))
    try:
        with mode:
            yield mode.fired
    finally:
        for handle in handles:
            handle.remove()


class _AtSoftmax(TorchFunctionMode):
    """Edits the softmax of the attention that runs at the moment, not a router's softmax over experts."""

    def __init__(self, edits: Mapping[Site, Edit], n_heads: int):
        super().__init__()
        self.edits, self.n_heads = edits, n_heads
        self.fired: set[Site] = set()
        self._now: Site | None = None

    def enter(self, site: Site | None) -> None:
        self._now = site

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._now is not None and func in _SOFTMAX and args and args[0].ndim in (3, 4):
            self.fired.add(self._now)
            args = (self._edited(self._now, args[0]), *args[1:])
        return func(*args, **(kwargs or {}))

    def _edited(self, site: Site, scores: Tensor) -> Tensor:
        """Return the edited scores in their own shape: XGLM has rows and heads in one axis."""
        if scores.ndim == 4:
            return self.edits[site](scores)
        return self.edits[site](scores.unflatten(0, (-1, self.n_heads))).flatten(0, 1)

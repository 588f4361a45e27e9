"""The residual stream that enters later blocks with one head's z replaced, all other heads clean.

With MLPs ``frozen`` every component between keeps its clean output, so that the stream is the clean one plus the change
of what the sender writes (the edges of ACDC: Conmy et al. 2023, arXiv:2304.14997). With MLPs ``recomputed`` those
between read the changed stream, and only heads are held (path patching: Wang et al. 2022, arXiv:2211.00593, §3.1).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.ablation import Baseline, Check, Intervention, capture
from harness.ablation.clean_z import Captured
from harness.ablation.positions import Places
from harness.config.edges import Between
from harness.hooks import Head, Site
from harness.models import Model
from harness.sweep import engine
from harness.sweep.edges.block_run import stream_of
from harness.sweep.engine import Clean

Written = Float[Tensor, "row position d_model"]
#: A sender, and the block that its stream enters.
Place = tuple[Head, int]


@dataclass(frozen=True)
class Senders:
    """Heads whose z is replaced one at a time in the rows of a clean run; `z` is the clean z of every attention."""

    model: Model
    clean: Clean
    baseline: Baseline
    positions: Places | None
    z: Captured

    @classmethod
    def of(cls, model: Model, clean: Clean, baseline: Baseline, positions: Places | None) -> "Senders":
        return cls(model, clean, baseline, positions, capture(model, clean.inputs, model.shape.sites))

    def intervention(self, sender: Head) -> Intervention:
        return Intervention((sender,), self.baseline, self.positions)

    def replaced(self, sender: Head) -> Float[Tensor, "row position head d_head"]:
        """Return z of the sender's attention with the sender's replaced."""
        clean = self.z[sender.site]
        edited = clean.clone()
        for edit in self.intervention(sender).edits(slice(None)):
            edit.make(clean, edited)
        return edited

    @torch.no_grad()
    def change(self, sender: Head) -> Written:
        """Return the change of what the sender's attention writes to the stream, through W_O, a norm that follows it
        (Gemma's) and the residual multiplier."""
        bridge, site = self.model.bridge, sender.site
        write, norm = hooks.output_projection(bridge, site).forward, hooks.norm_of_write(bridge, site)
        before, after = (z.flatten(2) for z in (self.z[site], self.replaced(sender)))
        scale = self.model.traits.write_scale[site]
        if norm is None:  # an affine map: the bias goes
            return scale * (write(after - before) - write(torch.zeros_like(before[:1, :1])))
        return scale * (norm(write(after)) - norm(write(before)))

    def streams(self, wanted: Iterable[Place], between: Between, at_once: int) -> Mapping[Place, Written]:
        """Return the stream that enters each wanted block with that sender's z replaced.

        `at_once` senders share a forward where MLPs are recomputed.
        """
        places = list(dict.fromkeys(wanted))
        entered = [stream_of(*arguments) for arguments in self.clean.entered]
        kept = {place: entered[place[1]] for place in places if place[1] <= place[0].layer}
        later = [place for place in places if place not in kept]
        senders = sorted({sender for sender, _ in later})
        if between == "frozen":
            moved = {sender: self.change(sender) for sender in senders}
            return kept | {(sender, at): entered[at] + moved[sender] for sender, at in later}
        for start in range(0, len(senders), at_once):
            chunk = senders[start : start + at_once]
            kept |= self._recomputed(chunk, [place for place in later if place[0] in chunk])
        return kept

    def _recomputed(self, chunk: Sequence[Head], wanted: Sequence[Place]) -> dict[Place, Written]:
        """Run the tail of the model for some senders, in the order of layers, later heads held at their clean z."""
        kept: dict[Place, Written] = {}
        todo = [self.intervention(sender) for sender in chunk]
        engine.run_ablated(self.model, self.clean, todo, Check(), partial(self._watched, chunk, wanted, kept))
        return kept

    def _watched(self, chunk: Sequence[Head], wanted: Sequence[Place], kept: dict[Place, Written]) -> list[Any]:
        """Hook W_O of later attentions, to hold their z, and the wanted blocks, to read their inputs."""
        n_rows, blocks = self.clean.n_rows, hooks.blocks(self.model.bridge)

        def hold(site: Site) -> Any:
            begun = sum(sender.layer < site.layer for sender in chunk)
            clean = self.z[site].flatten(2)

            def before(_: Any, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
                z = args[0].clone()
                z[: begun * n_rows] = clean.repeat(begun, 1, 1)
                return (z, *args[1:])

            return hooks.output_projection(self.model.bridge, site).register_forward_pre_hook(before)

        def read(at: int) -> Any:
            def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                stream = stream_of(args, kwargs)
                for sender, block in wanted:
                    if block == at:
                        copy = chunk.index(sender)
                        kept[sender, at] = stream[copy * n_rows : (copy + 1) * n_rows].clone()

            return blocks[at].register_forward_pre_hook(before, with_kwargs=True)

        first = chunk[0].layer
        return [*(hold(site) for site in self.z if site.layer > first), *map(read, {at for _, at in wanted})]

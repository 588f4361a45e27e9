"""Pruning curves: ablate one head after another, each staying ablated.

Orders are chosen before the curve is measured and frozen in the plan: by the effects of single heads (Michel et al.
2019, arXiv:1905.10650, prune the least needed first), by the greedy choice of `harness.sweep.greedy`, and at random as
the baseline. An order chosen on the prompts it is then measured on looks a little better than it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from harness.execute.cost import Trial
from harness.metrics import lead
from harness.sweep.importance import First, means, ranked, worse
from harness.sweep.interventions import EFFECT
from harness.sweep.stage import SweepStage


@dataclass(frozen=True)
class CumulativeStage:
    """The stage that ablates one head after another; one unit is a batch of prompts, all steps of all orders on it.

    `sweep` holds model, prompts and ablation; its groups are the heads to order, one by one. `orders` are ``effect``,
    ``estimate`` and ``greedy`` (which need earlier stages) and ``random``, which stands for `n_random` orders drawn by
    the sweep's seed. Each has `n_steps` steps.
    """

    sweep: SweepStage
    orders: tuple[str, ...]
    n_steps: int
    n_random: int = 10
    first: First = "most_needed"

    @property
    def name(self) -> str:
        return self.sweep.name

    def plan(self, done: xr.Dataset | None = None) -> dict[str, Any]:
        """Return the orders by name, and the sets of heads of their steps.

        Raises `RequestError` where `done` lacks the values that an order needs.
        """
        orders = {name: heads for order in self.orders for name, heads in self._ordered(order, done).items()}
        return {**self._sweep(orders).plan(), "orders": orders}

    def _ordered(self, order: str, done: xr.Dataset | None) -> dict[str, list[str]]:
        """Return the order of this name, or all random ones: the head that is ablated at each step."""
        if order == "random":
            drawn = [np.random.default_rng([self.sweep.seed, at]) for at in range(self.n_random)]
            names = np.array(list(self.sweep.groups))
            return {f"random {at + 1}": rng.permutation(names)[: self.n_steps].tolist() for at, rng in enumerate(drawn)}
        if order == "greedy":
            assert done is not None
            return {order: done["greedy_head"].values[: self.n_steps].tolist()}
        by = lead(self.sweep.metrics)
        needed = {head: worse(mean, by) for head, mean in means(done, order, self.sweep.heads, by).items()}
        return {order: list(map(str, ranked(needed, self.first)))[: self.n_steps]}

    def _sweep(self, orders: Mapping[str, Sequence[str]]) -> SweepStage:
        """Return the sweep of the sets of heads that are ablated at each step of these orders."""
        head = dict(self.sweep.groups)
        return self.sweep.of(
            {
                f"{name} {step}": tuple(part for each in heads[:step] for part in head[each])
                for name, heads in orders.items()
                for step in range(1, len(heads) + 1)
            }
        )

    def cost(self, trial: Trial) -> str:
        return self.as_sweep().cost(trial)

    def as_sweep(self) -> SweepStage:
        """Return a sweep of as many sets of the same sizes, for the forecast, before any order is known."""
        n_orders = len(self.orders) - 1 + self.n_random if "random" in self.orders else len(self.orders)
        return self._sweep(replace(self, n_random=n_orders)._ordered("random", None))

    def compute(self, plan: Mapping[str, Any], unit: int) -> dict[str, np.ndarray]:
        return self.sweep.planned(plan).compute(plan, unit)

    def assemble(self, plan: Mapping[str, Any], units: Sequence[Mapping[str, np.ndarray]]) -> xr.Dataset:
        """Return `cumulative_effect` [metric, prompt, order, step], `cumulative_head` [order, step], and `clean`.

        `step` counts the heads ablated; `cumulative_head` is the head that is new at the step.
        """
        swept = self.sweep.planned(plan).assemble(plan, units)
        flat, heads = swept[EFFECT["cumulative"]], np.array(list(plan["orders"].values()))
        notes = {"ordered_by": lead(self.sweep.metrics).name, "first": self.first}
        values = flat.values.reshape(*flat.shape[:2], *heads.shape)
        coords = {"order": list(plan["orders"]), "step": np.arange(1, heads.shape[1] + 1)}
        effect = xr.DataArray(values, dims=("metric", "prompt", "order", "step"), attrs={**flat.attrs, **notes})
        made = {
            "clean": swept["clean"],
            "cumulative_effect": effect,
            "cumulative_head": xr.DataArray(heads, dims=("order", "step"), attrs=notes),
        }
        return xr.Dataset(made, {**swept["clean"].coords, **coords})

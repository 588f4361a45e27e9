"""Effects of whole layers or their MLPs, where no single heads were ablated: a curve per kind."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from harness.views.charts.describe import Described, chart, in_full, measured, numbers, plain_name, standard_error

if TYPE_CHECKING:
    from harness.results import Run

#: Variables of whole layers, and what is ablated.
SWEPT = {
    "layer_effect": "all heads",
    "attn_effect": "attention",
    "mlp_effect": "MLP",
    "resid_effect": "residual stream before it",
}


def swept(run: "Run") -> list[str]:
    """Return the variables of whole layers, at all positions together, of a run without effects of single heads."""
    known = [] if "effect" in run.data else [name for name in SWEPT if name in run.data]
    return [name for name in known if "position" not in run.data[name].dims]


def layers(run: "Run") -> Iterator[Described]:
    """Describe the effects of layers, one chart for each metric."""
    if not swept(run):
        return
    for metric in map(str, run.data["metric"].values):
        yield chart(
            run,
            "curves",
            f"layers_{plain_name(metric)}",
            "layers",
            f"Effect of ablating each layer, {in_full(metric)}",
            f"Mean effect on {measured(run, metric)}, and one standard error over prompts each way.",
            panels=[_panel(run, metric, stack, n) for stack, n in run.layers.items()],
            y={"label": f"effect on {measured(run, metric)}", "unit": run.unit(metric).strip()},
            zero=True,
        )


def _panel(run: "Run", metric: str, stack: str, n_layers: int) -> Described:
    series = [
        {"name": SWEPT[name], "values": numbers(mean), "low": numbers(mean - error), "high": numbers(mean + error)}
        for name, (mean, error) in layer_means(run, metric, stack).items()
    ]
    n_rows = n_layers + ("resid_effect" in run.data)
    return {"x": {"label": f"{stack} layer".strip(), "values": list(range(n_rows))}, "series": series}


def layer_means(run: "Run", metric: str, stack: str) -> dict[str, tuple[Float[np.ndarray, " layer"], np.ndarray]]:
    """Return the mean effect of each layer of a stack (of the residual stream one more, its end), and its standard
    error, by variable."""
    made = {}
    for name in swept(run):
        effect = run.data[name].sel(metric=metric)
        mine = effect.sel(stack=stack) if stack else effect
        down = "depth" if "depth" in mine.dims else "layer"
        values = mine.transpose("prompt", down).values[:, : run.layers[stack] + (down == "depth")].astype(float)
        if np.isfinite(values).any():
            made[name] = values.mean(axis=0), standard_error(values)
    return made

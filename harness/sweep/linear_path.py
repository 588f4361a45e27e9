"""The straight path from a head's output to a metric that is linear in the logits, as derivatives.

With the norms on the way frozen at their clean scale, the path from a head's z through W_O, the norm after it where
there is one, the final norm and the unembedding is one linear map for each scored position (Elhage et al. 2021, "A
mathematical framework for transformer circuits"). So one backward pass through the model's head and one through each
W_O serve all heads.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from harness import hooks
from harness.hooks import Site
from harness.hooks.frozen_norm import FrozenNorm
from harness.metrics import METRICS, Metric
from harness.models import Model
from harness.sweep.direct import frozen_final_norm
from harness.sweep.engine import Clean, by_target


def why_not_linear(metrics: Sequence[Metric]) -> str:
    """Describe why none of these metrics has a linear path; empty where one has."""
    if any(metric.linear for metric in metrics):
        return ""
    linear = " or ".join(name for name, metric in METRICS.items() if metric.linear and metric.of != "labels")
    return f"{', '.join(metric.name for metric in metrics)}: not linear in the logits; add {linear} to metrics"


@torch.no_grad()
def read_at_end(model: Model, clean: Clean, metrics: Sequence[Metric]) -> Float[Tensor, "metric target d_model"]:
    """Return the derivative of each metric by the end of the residual stream, the final norm's scale frozen."""
    with torch.enable_grad(), frozen_final_norm(model, clean):
        end = clean.end.detach().clone().requires_grad_()
        values = by_target(model, clean, end, metrics)[:, 0]
        grads = [torch.autograd.grad(each.sum(), end, retain_graph=True)[0] for each in values]
    return torch.stack(grads).double()


def through_output(
    model: Model,
    site: Site,
    z: Float[Tensor, "target head d_head"],
    read: Float[Tensor, "metric target d_model"],
) -> Float[Tensor, "metric target head d_head"]:
    """Return the derivative of each metric by the clean `z`: back through the norm after W_O, if there is one, and W_O.

    `read` is the derivative by the stream (`read_at_end`).
    """
    # Its forward, past the hooks of an ablation in force: this is the map alone, not a run of the model.
    write, norm = hooks.output_projection(model.bridge, site).forward, hooks.norm_of_write(model.bridge, site)
    with torch.enable_grad():
        before = z.to(getattr(torch, model.spec.dtype)).flatten(1)[None].requires_grad_()
        out = write(before)
        out = out if norm is None else FrozenNorm(norm, out.detach())(out)
        scaled = (model.traits.write_scale[site] * read).to(out)
        grads = [torch.autograd.grad(out, before, each[None], retain_graph=True)[0][0] for each in scaled]
    return torch.stack(grads).unflatten(-1, z.shape[1:]).double()

"""Checks that the hooked model computes what the plain one does.

The plain Hugging Face model runs a probe before TransformerLens wraps it; the hooked model must give the same output,
and its hook points must have the shapes that `harness.hooks` lists.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness import hooks
from harness.config import RequestError
from harness.models import Inputs, Kind, Model
from harness.models.tokens import Tokens

if TYPE_CHECKING:
    import torch

#: Texts on which the hooked model is compared with the plain one; two lengths, so that padding is checked too.
PROBE = ("The old map showed three roads, but only one of them led to the sea.", "Rain fell.")


class ModelMismatch(RequestError):
    """The hooked model differs from the plain one: in logits, or in hook points that are missing or misshapen."""


@contextmanager
def running_probe(name: str, dtype: str) -> Iterator[None]:
    """Raise any error of a hooked forward of the probe as `ModelMismatch`: the architecture is not hooked."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        reason = f"TransformerLens's hooked model does not run this architecture ({first})"
        # OLMo's norm gives fp32 for any input, which the layers after it refuse.
        remedy = "" if dtype == "float32" else f" in {dtype}; try model.dtype=float32"
        raise ModelMismatch("model", name, reason + remedy) from error


def probe(tokens: Tokens, d_vocab: int, kind: Kind, device: "torch.device") -> Inputs:
    """Return the probe as inputs; an encoder-decoder reads one text while it writes the other."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rows = [torch.tensor(ids, device=device) for ids in _probe_ids(tokens, d_vocab)]
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    token_id = pad_sequence(rows, batch_first=True)
    if kind != "encoder_decoder":
        return Inputs(token_id, mask)
    return Inputs(token_id[:, :-2], mask[:, :-2], None, token_id.flip(0), mask.flip(0))


def _probe_ids(tokens: Tokens, d_vocab: int) -> list[Sequence[int]]:
    """Return the probe's tokens; where the model has no embeddings for them, the first ordinary tokens."""
    texts: list[Sequence[int]] = [tokens.encode(text).token_id for text in PROBE]
    if max(map(max, texts)) < d_vocab:
        return texts
    ordinary = sorted(set(range(d_vocab)) - tokens.special_ids)
    return [ordinary[:16], ordinary[:4]]


def answer(plain: Any, inputs: Inputs, kind: Kind) -> "torch.Tensor":
    """Return the plain model's output: logits, or the last hidden states of a model without a head."""
    if kind == "encoder_decoder":
        return plain(inputs.source_id, attention_mask=inputs.source_mask, decoder_input_ids=inputs.token_id).logits
    out = plain(inputs.token_id, attention_mask=inputs.mask)
    return out.logits if "logits" in out else out.last_hidden_state


def compare(model: Model, inputs: Inputs, expected: "torch.Tensor") -> float:
    """Return the largest difference from the plain model's output at real tokens, as a share of the largest value.

    Raises `ModelMismatch` above the model's tolerance.
    """
    difference, scale = largest_difference(model, inputs, expected)
    if not math.isfinite(scale):
        half = model.spec.dtype != "float32"
        remedy = "set model.dtype=float32 (or bfloat16)" if half else "its weights are damaged"
        raise ModelMismatch(
            "model", model.name, f"the plain model itself gives NaN or infinity in {model.spec.dtype}: {remedy}"
        )
    difference, allowed = difference / scale, allowed_difference(model)
    if not difference <= allowed:
        raise ModelMismatch(
            "model",
            model.name,
            f"the hooked model's logits differ from the plain model's by {difference:.2g} of the largest logit "
            f"(allowed: {allowed:.2g}); TransformerLens does not reproduce this architecture faithfully",
        )
    return difference


def largest_difference(model: Model, inputs: Inputs, expected: "torch.Tensor") -> tuple[float, float]:
    """Return the largest difference of the hooked model's output from `expected` at real tokens, and the largest value
    of `expected` there."""
    import torch

    got, real = _hooked_answer(model, inputs), inputs.mask.bool()
    if model.kind == "classifier":
        real = torch.ones_like(got, dtype=torch.bool)
    return float((got - expected)[real].abs().max()), float(expected[real].abs().max())


def allowed_difference(model: Model) -> float:
    """Return the largest difference that is allowed, as a share of the largest value."""
    import torch

    return max(model.spec.tolerance, 8 * torch.finfo(getattr(torch, model.spec.dtype)).eps)


def _hooked_answer(model: Model, inputs: Inputs) -> "torch.Tensor":
    match model.kind:
        case "embedding":
            return model.last_hidden(inputs)
        case "classifier":
            return model.label_logits(inputs)
    return model.forward(inputs)


def check_hooks(model: Model, inputs: Inputs) -> None:
    """Check that every hook point used here fires with its documented shape. Raises `ModelMismatch` otherwise."""
    bridge, name = model.bridge, model.name
    kinds: tuple[hooks.Kind, ...] = ("pattern", "z", "q", "k", "v")
    wanted = {
        hooks.hook_name(kind, site): (len(inputs.mask), *_sizes(model, inputs, kind, site))
        for kind in kinds
        for site in model.shape.sites
    }
    missing = sorted(set(wanted) - set(bridge.hook_dict))
    if missing:
        raise ModelMismatch(
            "model", name, f"TransformerLens has no hook point {missing[0]} here ({len(missing)} are missing)"
        )
    shapes: dict[str, tuple[int, ...]] = {}

    def look(tensor: "torch.Tensor", hook: Any, at: str) -> None:
        shapes[at] = tuple(tensor.shape)

    looks = [(at, lambda tensor, hook, at=at: look(tensor, hook, at)) for at in wanted]
    with bridge.hooks(fwd_hooks=looks):
        model.forward(inputs)
    for at, expected in wanted.items():
        if shapes.get(at) != expected:
            raise ModelMismatch("model", name, f"{at} carries {shapes.get(at, 'nothing')}, expected {expected}")


def _sizes(model: Model, inputs: Inputs, kind: hooks.Kind, site: hooks.Site) -> list[int]:
    """Return the sizes of the axes of a hook point."""
    shape = model.shape
    of = {"position": inputs.mask.shape[1], "head": shape.n_heads, "kv_head": shape.n_kv_heads, "d_head": shape.d_head}
    if inputs.source_mask is not None:
        of["source_position"] = inputs.source_mask.shape[1]
    of |= {axis: of[position] for axis, position in hooks.POSITIONS.items() if position in of}
    return [of[axis] for axis in hooks.axes(kind, site.stack)]


def not_finite(model: Model, prompt: int, what: str, value: Any) -> RequestError:
    """Return the error for NaN or infinity in a result, which is reported, never averaged away."""
    half = model.spec.dtype != "float32"
    remedy = "set model.dtype=float32" if half else "leave that prompt or head out, or look at the weights"
    return RequestError("model", model.name, f"{what} on prompt {prompt} is {value}; {remedy}")

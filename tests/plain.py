"""Plain Hugging Face forwards with a head's slice of W_O's input replaced: what every effect must equal.

Nothing of TransformerLens and nothing of the engine is used. No two prompts share a forward, so nothing is padded: the
rows of one are the same prompt under other edits.
"""

from functools import cache

import numpy as np
import torch

from harness.models import random as random_models


@cache
def twin(shape, seed=0):
    """The random weights of a shape and seed in a plain Hugging Face model, never touched by TransformerLens."""
    return random_models.build(shape, seed)[0].eval()


def projections(model):
    """W_O of each layer of a plain Hugging Face decoder or BERT."""
    base = model.base_model
    if hasattr(base, "encoder"):
        yield from (layer.attention.output.dense for layer in base.encoder.layer)
        return
    for layer in base.h if hasattr(base, "h") else base.layers:
        attention = next(getattr(layer, name) for name in ("attn", "attention", "self_attn") if hasattr(layer, name))
        yield next(getattr(attention, name) for name in ("c_proj", "dense", "o_proj") if hasattr(attention, name))


@torch.no_grad()
def z(model, token_id, d_head, **given):
    """z of one prompt, [layer, position, head, d_head], read at W_O's input."""
    kept = []
    handles = [
        projection.register_forward_pre_hook(lambda _, args: kept.append(args[0][0]))
        for projection in projections(model)
    ]
    try:
        model(torch.as_tensor(token_id)[None], **given)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept).unflatten(2, (-1, d_head))


@torch.no_grad()
def logits(model, token_id, heads=(), d_head=None, new=None, positions=None, **given):
    """Logits [position, vocab] of one prompt (or a bare encoder's last hidden states), the given heads' z zeroed, or
    replaced by `new` [layer, position, head, d_head]; everywhere, or at some positions."""
    return logits_each(model, token_id, [(heads, new, positions)], d_head, **given)[0]


@torch.no_grad()
def logits_each(model, token_id, edits, d_head=None, **given):
    """Logits [edit, position, vocab] of one prompt, which runs in a row for each edit: (heads, new, positions) as in
    `logits`."""

    def replacing(layer):
        def hook(_, args):
            z = args[0].clone()
            for row, (heads, new, positions) in enumerate(edits):
                where = slice(None) if positions is None else list(positions)
                for head in heads:
                    if head.layer == layer:
                        put = 0 if new is None else new[head.layer, where, head.head]
                        z[row, where, head.head * d_head : (head.head + 1) * d_head] = put
            return (z,)

        return hook

    handles = [
        projection.register_forward_pre_hook(replacing(layer)) for layer, projection in enumerate(projections(model))
    ]
    try:
        ids = torch.as_tensor(token_id)[None]
        wider = {name: each.expand(len(edits), *each.shape[1:]) for name, each in given.items()}
        out = model(ids.expand(len(edits), *ids.shape[1:]), **wider)
        return out.logits if "logits" in out else out.last_hidden_state
    finally:
        for handle in handles:
            handle.remove()


def metrics(prompts, row, logits, clean):
    """Each metric of one prompt from its logits [position, vocab], in double precision."""
    at = prompts.target[row].nonzero()[0]
    correct = torch.as_tensor(prompts.correct[row, at])
    log_prob, before = logits[at].double().log_softmax(-1), clean[at].double().log_softmax(-1)
    right = log_prob.gather(1, correct[:, None])[:, 0]
    values = {
        "loss": -right.mean(),
        "kl": (before.exp() * (before - log_prob)).sum(-1).mean(),
        "accuracy": (logits[at].argmax(-1) == correct).double().mean(),
        "prob": right.exp().mean(),
    }
    if prompts.has_answer and prompts.has_distractor:
        values["logit_diff"] = (logits[at, prompts.answer[row]] - logits[at, prompts.distractor[row]]).double().mean()
    return {name: float(value) for name, value in values.items()}


def ablated(model, prompts, sets, names):
    """`clean` [metric, prompt] and `ablated` [metric, prompt, set] of a tiny random model, each set of heads zeroed."""
    plain, shape = twin(model.spec.shape, model.spec.seed), (len(names), len(prompts))
    clean, found = np.zeros(shape), np.zeros((*shape, len(sets)))
    for row in range(len(prompts)):
        edits = [(heads, None, None) for heads in ((), *sets)]
        each = logits_each(plain, prompts.token_id[row, : prompts.length[row]], edits, model.shape.d_head)
        values = [metrics(prompts, row, after, each[0]) for after in each]
        clean[:, row] = [values[0][name] for name in names]
        found[:, row] = [[value[name] for value in values[1:]] for name in names]
    return clean, found

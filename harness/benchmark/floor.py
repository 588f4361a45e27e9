"""What a sweep cannot be faster than: its multiply-adds, at the rate at which this machine does matrix products."""

import time

import torch

from harness import hooks
from harness.benchmark.sides import Work


def floor(work: Work) -> float:
    """Seconds that the multiply-adds of an exact sweep take at the rate of this machine's matrix products.

    Counted are the matrices of the blocks that follow each head, on the tokens that can change, and the unembedding at
    the scored positions; not counted are the products of queries and keys and everything that is no matrix product.
    """
    shape, plain = work.model.shape, hooks.plain_model(work.model.bridge)
    inside = sum(parameter.numel() for parameter in plain.base_model.parameters() if parameter.ndim == 2)
    embeddings = sum(module.weight.numel() for module in plain.modules() if isinstance(module, torch.nn.Embedding))
    per_block = (inside - embeddings) / shape.n_layers
    changed = work.tokens if work.positions == "all" else len(work.prompts)
    blocks = sum(shape.n_layers - head.layer for head in work.heads) * changed * per_block
    read = work.n_heads * int(work.prompts.target.sum()) * shape.d_model * shape.d_vocab
    return (blocks + read) / _rate(shape.d_model, work.model.device)


def _rate(width: int, device: str) -> float:
    """Multiply-adds per second of a matrix product of the model's shape, the best of a few."""
    a, b = torch.randn(4096, width, device=device), torch.randn(width, 4 * width, device=device)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 4096 * width * 4 * width / (time.perf_counter() - started))
    return best

"""Lower bound of a sweep's time: its multiply-adds at the machine's matmul throughput."""

import time

import torch

from harness import hooks
from harness.benchmark.sides import SweepTask


def floor(work: SweepTask) -> float:
    """Return the seconds that the multiply-adds of an exact sweep take at this machine's matmul throughput.

    Counted are the matrices of each head's block and those after it, on the tokens that can change, of the last block
    (but for keys and values) on the scored ones; and the unembedding there. Not counted are the products of queries
    and keys and everything that is no matrix product.
    """
    shape, plain = work.model.shape, hooks.plain_model(work.model.bridge)
    inside = sum(parameter.numel() for parameter in plain.base_model.parameters() if parameter.ndim == 2)
    embeddings = sum(module.weight.numel() for module in plain.modules() if isinstance(module, torch.nn.Embedding))
    per_block = (inside - embeddings) / shape.n_layers
    changed = work.tokens if work.positions == "all" else len(work.prompts)
    scored = int(work.prompts.by_choice()[0].target.sum())
    narrow = sum(module.weight.numel() for module in hooks.beside_keys_and_values(work.model.bridge))
    last = changed * (per_block - narrow) + min(changed, scored) * narrow
    blocks = sum((shape.n_layers - 1 - head.layer) * changed * per_block + last for head in work.heads)
    read = work.n_heads * scored * shape.d_model * shape.d_vocab
    return (blocks + read) / _rate(shape.d_model, work.model.device)


def _rate(width: int, device: str) -> float:
    """Measure the multiply-adds per second of a matrix product of the model's shape, the best of eight."""
    a, b = torch.randn(4096, width, device=device), torch.randn(width, 4 * width, device=device)
    best = 0.0
    for _ in range(8):
        started = time.perf_counter()
        torch.mm(a, b)
        if device != "cpu":
            torch.cuda.synchronize()
        best = max(best, 4096 * width * 4 * width / (time.perf_counter() - started))
    return best

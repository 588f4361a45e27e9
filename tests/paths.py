"""Path patching of a plain Hugging Face decoder: what every edge must equal.

Nothing of TransformerLens or of this library: hooks on the plain model's own modules, each prompt alone, no padding.
"""

from typing import Any

import families
import torch

#: The linear layers of queries, keys and values, by family; of any other family q_proj, k_proj and v_proj.
_FUSED = {
    **dict.fromkeys(("gpt2", "gpt_bigcode"), "c_attn"),
    **dict.fromkeys(("gpt_neox", "bloom", "falcon", "falcon_alibi"), "query_key_value"),
    **dict.fromkeys(("codegen", "phi3"), "qkv_proj"),
    "mpt": "Wqkv",
}
_BY_HEAD = ("gpt_neox", "bloom", "falcon_alibi")  # head after head: its query, its key, its value
NORMED = ("olmo2", "olmo3", "olmoe")  # a norm over all heads' queries, and keys: a head reads what it gives
_MLPS = ("mlp", "block_sparse_moe", "feed_forward", "fc2")


class Paths:
    """Edges of a plain decoder (`families.Plain`), with a sender's z zeroed."""

    def __init__(self, plain: families.Plain, token_id: Any):
        self.plain, self.token_id = plain, token_id
        self.n_kv = _n_kv(plain)
        self.mlps = [self._mlp(block) for block in plain.blocks]
        self.projections = [self._projections(block) for block in plain.blocks]
        self.clean: dict[Any, Any] = {}
        every = [*plain.outputs, *self.mlps, *(m for each in self.projections for m in set(each.values()))]
        keep = [(m, False, lambda m, args, out: self.clean.__setitem__(m, families.copied(out))) for m in every]
        keep += [(m, True, lambda m, args: self.clean.__setitem__((m, "in"), args[0].clone())) for m in plain.outputs]
        self.clean_logits = plain.logits(token_id, keep)

    def edge(self, sender: tuple[int, int], receiver: tuple[int, int | None], into: str, recomputed: bool) -> Any:
        """Logits with the sender zeroed for this receiver only (a head, or the MLP of a layer)."""
        changed = self._changed(sender, receiver, into, recomputed)
        layer, head = receiver
        if head is None:
            module = self.mlps[layer]
            return self.plain.logits(self.token_id, [(module, False, lambda m, args, out: changed[m])])
        return self.with_inputs(layer, head, into, changed)

    def with_inputs(self, layer: int, head: int, into: str, changed: dict[Any, Any]) -> Any:
        """Logits where one head alone reads the changed outputs of its projections `into` (q, k, v)."""
        z = self._z(layer, head, into, changed)
        columns = self.plain.head(layer, head)

        def put(_: Any, args: Any) -> Any:
            whole = args[0].clone()
            whole[..., columns] = z[..., columns]
            return (whole, *args[1:])

        return self.plain.logits(self.token_id, [(self.plain.outputs[layer], True, put)])

    def projected(self, token_id: Any) -> dict[Any, Any]:
        """What every projection gives for another text."""
        kept: dict[Any, Any] = {}
        every = {module for each in self.projections for module in each.values()}
        keep = [(m, False, lambda m, args, out: kept.__setitem__(m, families.copied(out))) for m in every]
        self.plain.logits(token_id, keep)
        return kept

    def _changed(self, sender: Any, receiver: Any, into: str, recomputed: bool) -> dict[Any, Any]:
        """What the receiver's modules give when they read the stream without the sender, all between held."""
        kept: dict[Any, Any] = {}
        layer, head = receiver
        hold = [self.plain.zeroing(*sender)]
        for at, output in enumerate(self.plain.outputs):
            if at != sender[0]:
                hold.append((output, False, lambda m, args, out: families.copied(self.clean[m])))
            own = head is None and at == layer
            if not recomputed and not own:
                hold.append((self.mlps[at], False, lambda m, args, out: families.copied(self.clean[m])))
        read = [self.mlps[layer]] if head is None else list(dict.fromkeys(self.projections[layer].values()))
        keep = [(m, False, lambda m, args, out: kept.__setitem__(m, families.copied(out))) for m in read]
        self.plain.logits(self.token_id, [*hold, *keep])
        return kept

    def _z(self, layer: int, head: int, into: str, changed: dict[Any, Any]) -> Any:
        """The input of W_O when the query, key or value of one head is the changed one."""
        kept: list[Any] = []
        by_module: dict[Any, list[Any]] = {}
        for kind in into:
            module = self.projections[layer][kind]
            by_module.setdefault(module, []).append(self._columns(kind, head, changed[module].shape[-1]))

        def put(module: Any, args: Any, out: Any) -> Any:
            whole = out.clone()
            for columns in by_module[module]:
                whole[..., columns] = changed[module][..., columns]
            return whole

        edits = [(module, False, put) for module in by_module]
        keep = (self.plain.outputs[layer], True, lambda m, args: kept.append(args[0].clone()))
        self.plain.logits(self.token_id, [*edits, keep])
        return kept[0]

    def _columns(self, kind: str, head: int, width: int) -> Any:
        """The columns of a projection's output that are a head's query, key or value."""
        n_heads, family = self.plain.n_heads, self.plain.family
        of = head if kind == "q" else head * self.n_kv // n_heads
        if family not in _FUSED:
            d = width // (n_heads if kind == "q" else self.n_kv)
            return torch.arange(of * d, (of + 1) * d)
        if family == "codegen":  # four parts, each of queries, values, keys; here each part is a head
            part = width // 4
            d = part // 3
            return head * part + "qvk".index(kind) * d + torch.arange(d)
        d = width // (n_heads + 2 * self.n_kv)
        if family in _BY_HEAD:
            return (3 * head + "qkv".index(kind)) * d + torch.arange(d)
        first = {"q": 0, "k": n_heads, "v": n_heads + self.n_kv}[kind]
        return (first + of) * d + torch.arange(d)

    def _mlp(self, block: Any) -> Any:
        names = {"bloom": ("mlp.dense_4h_to_h",), "mpt": ("ffn.down_proj",)}.get(self.plain.family, _MLPS)
        return next(module for name, module in block.named_modules() if name in names)

    def _projections(self, block: Any) -> dict[str, Any]:
        by_end = {name.rpartition(".")[2]: module for name, module in block.named_modules()}
        fused, normed = _FUSED.get(self.plain.family), "qk" if self.plain.family in NORMED else ""
        return {kind: by_end[fused or f"{kind}_{'norm' if kind in normed else 'proj'}"] for kind in "qkv"}


def _n_kv(plain: families.Plain) -> int:
    config = plain.model.config
    if plain.family in ("gpt_bigcode", "falcon"):
        return 1
    return getattr(config, "num_key_value_heads", None) or plain.n_heads

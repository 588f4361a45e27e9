"""Decoder families as tiny local models: every causal architecture that transformers builds small from a config.

A family is a transformers config class with the sizes below. `build` makes the plain model, with weights large enough
that heads matter; `folder` saves it beside a byte tokenizer, as a user would have it on disk.
"""

from typing import Any

#: The sizes under their common names; what a family calls otherwise stands in `FAMILIES`.
BASE = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
}
GROUPED = {**BASE, "num_key_value_heads": 2}
GPT = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128}
WINDOWS = {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("ApertusConfig", GROUPED),
    "arcee": ("ArceeConfig", GROUPED),
    "biogpt": ("BioGptConfig", BASE),
    "bitnet": ("BitNetConfig", GROUPED),
    "bloom": ("BloomConfig", {"hidden_size": 48, "n_layer": 2, "n_head": 4}),
    "codegen": ("CodeGenConfig", {**GPT, "n_inner": 96, "rotary_dim": 4}),
    "cohere": ("CohereConfig", {**GROUPED, "logit_scale": 0.25}),
    "cohere2": ("Cohere2Config", {**GROUPED, "logit_scale": 0.25, **WINDOWS}),
    "deepseek_v2": (
        "DeepseekV2Config",
        {
            **BASE,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
        },
    ),
    "deepseek_v3": (
        "DeepseekV3Config",
        {
            **BASE,
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "first_k_dense_replace": 1,
            "n_group": 2,
            "topk_group": 1,
        },
    ),
    "doge": ("DogeConfig", GROUPED),
    "ernie4_5": ("Ernie4_5Config", GROUPED),
    "exaone4": ("Exaone4Config", {**GROUPED, **WINDOWS}),
    "falcon": ("FalconConfig", {**BASE, "multi_query": True, "new_decoder_architecture": False}),
    "falcon_alibi": ("FalconConfig", {**BASE, "multi_query": False, "alibi": True, "parallel_attn": False}),
    "falcon_new": ("FalconConfig", {**BASE, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_h1": ("FalconH1Config", {**GROUPED, "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}),
    "gemma": ("GemmaConfig", {**GROUPED, "head_dim": 16}),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 16, **WINDOWS, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3TextConfig", {**GROUPED, "head_dim": 16, **WINDOWS, "architectures": ["Gemma3ForCausalLM"]}),
    "glm": ("GlmConfig", {**GROUPED, "head_dim": 12}),
    "glm4": ("Glm4Config", {**GROUPED, "head_dim": 12}),
    "gpt1": ("OpenAIGPTConfig", GPT),
    "gpt2": ("GPT2Config", GPT),
    "gpt_bigcode": ("GPTBigCodeConfig", {**GPT, "n_inner": 96, "multi_query": True}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": 48,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 96,
            "window_size": 5,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 128,
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", BASE),
    "gpt_oss": ("GptOssConfig", {**GROUPED, "head_dim": 16, **LOCAL_EXPERTS, "sliding_window": 4}),
    "gptj": ("GPTJConfig", {**GPT, "n_inner": 96, "rotary_dim": 4}),
    "granite": (
        "GraniteConfig",
        {
            **GROUPED,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "attention_multiplier": 0.2,
        },
    ),
    "granitemoe": ("GraniteMoeConfig", {**GROUPED, **LOCAL_EXPERTS, "residual_multiplier": 0.3}),
    "helium": ("HeliumConfig", {**GROUPED, "head_dim": 12}),
    "hunyuan_dense": ("HunYuanDenseV1Config", {**GROUPED, "head_dim": 12}),
    "jamba": (
        "JambaConfig",
        {
            **GROUPED,
            "num_experts": 2,
            "mamba_dt_rank": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        },
    ),
    "lfm2": ("Lfm2Config", {**GROUPED, "layer_types": ["conv", "full_attention"]}),
    "llama": ("LlamaConfig", GROUPED),
    "minimax": ("MiniMaxConfig", {**GROUPED, **LOCAL_EXPERTS, "head_dim": 12}),
    "mistral": ("MistralConfig", {**GROUPED, "sliding_window": 5}),
    "mixtral": ("MixtralConfig", {**GROUPED, **LOCAL_EXPERTS}),
    "mpt": ("MptConfig", {"d_model": 48, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}),
    "nemotron": ("NemotronConfig", GROUPED),
    "olmo": ("OlmoConfig", GROUPED),
    "olmo2": ("Olmo2Config", GROUPED),
    "olmo3": ("Olmo3Config", {**GROUPED, **WINDOWS}),
    "olmoe": ("OlmoeConfig", {**GROUPED, **EXPERTS}),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 96,
            "max_position_embeddings": 128,
            "word_embed_proj_dim": 48,
        },
    ),
    "persimmon": ("PersimmonConfig", BASE),
    "phi": ("PhiConfig", BASE),
    "phi3": ("Phi3Config", GROUPED),
    "phimoe": ("PhimoeConfig", {**GROUPED, **LOCAL_EXPERTS}),
    "qwen2": ("Qwen2Config", GROUPED),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**GROUPED, **EXPERTS, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    ),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", {**GROUPED, "head_dim": 16, **EXPERTS, "moe_intermediate_size": 32}),
    "qwen3_next": (
        "Qwen3NextConfig",
        {
            **GROUPED,
            "head_dim": 16,
            **EXPERTS,
            "moe_intermediate_size": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "recurrent_gemma": ("RecurrentGemmaConfig", {**GROUPED, "num_hidden_layers": 3, "head_dim": 12, "lru_width": 48}),
    "rwkv": ("RwkvConfig", {"hidden_size": 48, "num_hidden_layers": 2, "context_length": 128}),
    "seed_oss": ("SeedOssConfig", {**GROUPED, "head_dim": 12}),
    "smollm3": ("SmolLM3Config", {**GROUPED, "no_rope_layer_interval": 2}),
    "stablelm": ("StableLmConfig", {**GROUPED, "partial_rotary_factor": 0.5}),
    "starcoder2": ("Starcoder2Config", GROUPED),
    "xglm": (
        "XGLMConfig",
        {"d_model": 48, "num_layers": 2, "attention_heads": 4, "ffn_dim": 96, "max_position_embeddings": 1024},
    ),
    "mamba": ("MambaConfig", {"hidden_size": 48, "num_hidden_layers": 2, "state_size": 4}),
}


def build(family: str, seed: int = 0) -> tuple[Any, Any]:
    """The plain Hugging Face model (eager attention, eval mode) and its tokenizer."""
    import torch
    import transformers

    from harness.models.random import byte_tokenizer

    name, sizes = FAMILIES[family]
    tokenizer = byte_tokenizer(f"local-{family}")
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        config = getattr(transformers, name)(vocab_size=len(tokenizer), **{**sizes, **special})
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        _make_heads_matter(model)
    finally:
        torch.set_rng_state(state)
    return model.eval(), tokenizer


def _make_heads_matter(model: Any) -> None:
    """Larger matrices than the usual 0.02, and norms' weights and biases that are not 1 and 0."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "sinks" in name:
                parameter.copy_(torch.randn_like(parameter) + 1.0)
            elif parameter.ndim >= 2:
                parameter.mul_(5.0)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))


def folder(family: str, path: Any) -> Any:
    """The model and its tokenizer saved under `path`; gives the plain model."""
    model, tokenizer = build(family)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return model


# --- plain Hugging Face references ------------------------------------------------------------------------------------
#
# Nothing of TransformerLens or of this library: hooks on the plain model's own modules, each prompt alone, no padding.

_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_OUTPUTS = ("o_proj", "c_proj", "out_proj", "dense")
_NORMS_OF_WRITE = {
    "gemma2": "post_attention_layernorm",
    "gemma3": "post_attention_layernorm",
    "olmo2": "post_attention_layernorm",
    "olmo3": "post_attention_layernorm",
    "exaone4": "post_attention_layernorm",
    "glm4": "post_self_attn_layernorm",
}
#: Where an MLP adds the stream inside itself, its last linear layer.
_MLPS = {"bloom": ("mlp.dense_4h_to_h",), "mpt": ("ffn.down_proj",)}
_FINAL_NORMS = ("norm", "ln_f", "final_layernorm", "final_layer_norm", "layer_norm", "norm_f")


class Plain:
    """A plain Hugging Face decoder taken apart: W_O of each layer, what writes to its stream, its final norm."""

    def __init__(self, family: str, model: Any):
        self.family, self.model = family, model
        by_name = dict(model.named_modules())
        self.outputs = [m for name, m in by_name.items() if _is_output(name)]
        blocks = [name.split(".") for name in by_name if _is_output(name)]
        depth = 3 if family == "gpt_neo" else 2
        self.blocks = [by_name[".".join(parts[:-depth])] for parts in blocks]
        self.n_heads = getattr(model.config, "num_attention_heads", None) or model.config.n_heads
        base = model.base_model.decoder if family == "opt" else model.base_model
        name = _NORMS_OF_WRITE.get(family)
        self.norms_of_write = {at: getattr(block, name) for at, block in enumerate(self.blocks) if name}
        self.final = next(getattr(base, name) for name in _FINAL_NORMS if hasattr(base, name))

    def head(self, layer: int, head: int) -> slice:
        """The columns of W_O's input that are this head's z."""
        weight = self.outputs[layer].weight
        width = weight.shape[0] if type(self.outputs[layer]).__name__ == "Conv1D" else weight.shape[1]
        return slice(head * width // self.n_heads, (head + 1) * width // self.n_heads)

    def writers(self, layer: int) -> list[Any]:
        """The modules beside this layer's W_O whose outputs join the stream, as the last layers that they end in."""
        found = []
        for at, block in enumerate(self.blocks):
            found += [self.outputs[at]] if at != layer else []
            for name, module in block.named_modules():
                if name in _MLPS.get(self.family, ("mlp", "block_sparse_moe", "feed_forward", "mamba", "fc2")):
                    found.append(module)
        return found

    def logits(self, token_id: Any, hooks: Any = ()) -> Any:
        """Logits at the last position, with these (module, is_pre, hook)."""
        import torch

        handles = [
            (module.register_forward_pre_hook if pre else module.register_forward_hook)(hook)
            for module, pre, hook in hooks
        ]
        try:
            with torch.no_grad():
                return self.model(torch.as_tensor(token_id)[None]).logits[0, -1].double()
        finally:
            for handle in handles:
                handle.remove()

    def zeroing(self, layer: int, head: int, last: bool = False) -> tuple[Any, bool, Any]:
        """Zero a head's z at W_O's input, everywhere or at the last position."""
        columns = self.head(layer, head)

        def zero(_: Any, args: Any) -> Any:
            z = args[0].clone()
            z[..., -1 if last else slice(None), columns] = 0
            return (z, *args[1:])

        return self.outputs[layer], True, zero

    def means(self, texts: Any) -> list[Any]:
        """The mean of W_O's input over all positions of all texts, by layer."""
        import torch

        kept: dict[Any, list[Any]] = {module: [] for module in self.outputs}
        keep = [(module, True, lambda m, args: kept[m].append(args[0].flatten(0, -2))) for module in self.outputs]
        for token_id in texts:
            self.logits(token_id, keep)
        return [torch.cat(kept[module]).double().mean(0) for module in self.outputs]

    def replacing(self, layer: int, head: int, means: Any = None) -> tuple[Any, bool, Any]:
        """Put a head's part of `means` in place of its z at W_O's input, or zero without them."""
        columns = self.head(layer, head)

        def put(_: Any, args: Any) -> Any:
            z = args[0].clone()
            z[..., columns] = 0 if means is None else means[layer][columns].to(z)
            return (z, *args[1:])

        return self.outputs[layer], True, put

    def streams(self, token_id: Any) -> list[Any]:
        """The residual stream [position, d_model] that enters each block, and what leaves the last."""
        kept: list[Any] = []

        def enter(_: Any, args: Any, named: Any) -> None:
            kept.append((args[0] if args else named["hidden_states"])[0].clone())

        handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in self.blocks]
        leave = lambda _, args, out: kept.append((out[0] if isinstance(out, tuple) else out)[0].clone())  # noqa: E731
        try:
            self.logits(token_id, [(self.blocks[-1], False, leave)])
        finally:
            for handle in handles:
                handle.remove()
        return kept

    def with_stream(self, token_id: Any, depth: int, stream: Any, position: Any = slice(None)) -> Any:
        """Logits with the stream before a block (after the last: what leaves it) overwritten at a position."""

        def put(hidden: Any) -> Any:
            hidden = hidden.clone()
            hidden[0, position] = stream[position]
            return hidden

        def enter(_: Any, args: Any, named: Any) -> Any:
            return (
                ((put(args[0]), *args[1:]), named)
                if args
                else (args, {**named, "hidden_states": put(named["hidden_states"])})
            )

        def leave(_: Any, args: Any, out: Any) -> Any:
            return (put(out[0]), *out[1:]) if isinstance(out, tuple) else put(out)

        if depth == len(self.blocks):
            return self.logits(token_id, [(self.blocks[-1], False, leave)])
        handle = self.blocks[depth].register_forward_pre_hook(enter, with_kwargs=True)
        try:
            return self.logits(token_id)
        finally:
            handle.remove()

    def with_output(self, token_id: Any, other: Any, module: Any, position: int) -> Any:
        """Logits with what a module gives at a position as it is for another text."""
        kept: list[Any] = []
        self.logits(other, [(module, False, lambda _, args, out: kept.append(out.clone()))])

        def put(_: Any, args: Any, out: Any) -> Any:
            out = out.clone()
            out.view(-1, out.shape[-1])[position] = kept[0].view(-1, out.shape[-1])[position]
            return out

        return self.logits(token_id, [(module, False, put)])

    def without(self, token_id: Any, layer: int, head: int, last: bool = False) -> Any:
        """Logits with a head zeroed: its total effect."""
        return self.logits(token_id, [self.zeroing(layer, head, last)])

    def direct(self, token_id: Any, layer: int, head: int) -> Any:
        """Logits with a head zeroed while every other module writes what it wrote, norms at their clean scale."""
        kept: dict[Any, Any] = {}
        writers = self.writers(layer)
        norms = [self.final]
        norms += [norm for at, norm in self.norms_of_write.items() if at == layer]
        # Copies: Falcon adds the attention's output to the MLP's in place.
        keep = [(module, False, lambda m, args, out: kept.__setitem__(m, copied(out))) for module in writers]
        keep += [(norm, True, lambda m, args: kept.__setitem__(m, args[0])) for norm in norms]
        self.logits(token_id, keep)
        hold = [(module, False, lambda m, args, out: copied(kept[m])) for module in writers]
        hold += [(norm, False, lambda m, args, out: frozen(m, args[0], kept[m], out)) for norm in norms]
        return self.logits(token_id, [self.zeroing(layer, head), *hold])

    def account(self, token_id: Any, layer: int, head: int) -> dict[str, Any]:
        """Logits by component of a head's zeroing: this component alone writes what it writes without the head, every
        other module writes what it wrote, norms are at their clean scale; of ``norm:L1`` that norm is not."""
        writers, norms = self.writers(-1), [self.final, *self.norms_of_write.values()]
        kept: list[dict[Any, Any]] = [{}, {}]
        for run, hooks in zip(kept, ([], [self.zeroing(layer, head)]), strict=True):
            keep = [(m, False, lambda m, args, out, run=run: run.__setitem__(m, copied(out))) for m in writers]
            keep += [
                (m, True, lambda m, args, run=run: run.__setitem__((m, "in"), args[0].clone())) for m in self.outputs
            ]
            keep += [(norm, True, lambda m, args, run=run: run.__setitem__(m, args[0].clone())) for norm in norms]
            self.logits(token_id, [*hooks, *keep])
        clean, ablated = kept

        def alone(changed: Any = (), z: Any = None, free: Any = None) -> Any:
            of = None if z is None else z[0]
            hold = [
                (m, False, lambda m, args, out: copied((ablated if m in changed else clean)[m]))
                for m in writers
                if m is not of
            ]
            hold += [(n, False, lambda m, args, out: frozen(m, args[0], clean[m], out)) for n in norms if n is not free]
            return self.logits(token_id, hold if z is None else [*hold, (of, True, lambda m, args: (z[1], *args[1:]))])

        parts = {"clean": alone()}
        for at, block in enumerate(self.blocks):
            others = [m for m in block.modules() if m in writers and m is not self.outputs[at]]
            parts[f"L{at}.mlp"] = alone(others)
            before, after = clean[self.outputs[at], "in"], ablated[self.outputs[at], "in"]
            for number in range(self.n_heads if at > layer else 0):
                z = before.clone()
                z[..., self.head(at, number)] = after[..., self.head(at, number)]
                parts[f"L{at}H{number}"] = alone(z=(self.outputs[at], z))
            if at in self.norms_of_write:
                parts[f"norm:L{at}"] = alone(z=(self.outputs[at], after), free=self.norms_of_write[at])
        return parts

    def knocked_out(self, token_id: Any, position: int, only: tuple[int, int] | None = None) -> Any:
        """Logits when no other query reads a position: its scores are −∞ in every softmax, or in one head."""
        import torch

        real, calls = torch.nn.functional.softmax, []

        def softmax(scores: Any, *args: Any, **named: Any) -> Any:
            if scores.ndim in (3, 4) and scores.shape[-2] == len(token_id):
                layer = len(calls)
                calls.append(layer)
                whole = scores if scores.ndim == 4 else scores.unflatten(0, (-1, self.n_heads))
                changed = whole.clone()
                heads = slice(None) if only is None else only[1]
                others = [query for query in range(len(token_id)) if query != position]
                if only is None or only[0] == layer:
                    for query in others:
                        changed[:, heads, query, position] = torch.finfo(scores.dtype).min
                scores = changed.reshape(scores.shape)
            return real(scores, *args, **named)

        torch.nn.functional.softmax = softmax
        try:
            return self.logits(token_id)
        finally:
            torch.nn.functional.softmax = real


def _is_output(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 2 and parts[-1] in _OUTPUTS and parts[-2] in _ATTENTIONS


def copied(out: Any) -> Any:
    """What a module gave, in memory of its own."""
    return tuple(map(copied, out)) if isinstance(out, tuple) else out.clone() if hasattr(out, "clone") else out


def frozen(norm: Any, x: Any, clean: Any, out: Any) -> Any:
    """γ ⊙ c(x) / s(clean) + β of a LayerNorm or RMSNorm, from what it gives and the scale of its input."""
    import torch

    def scale(rows: Any) -> Any:
        rows = rows.double()
        if centred:
            rows = rows - rows.mean(-1, keepdim=True)
        eps = next((float(getattr(norm, n)) for n in ("eps", "variance_epsilon") if hasattr(norm, n)), 1e-5)
        return (rows.square().mean(-1, keepdim=True) + eps).sqrt()

    centred = "RMS" not in type(norm).__name__
    bias = getattr(norm, "bias", None)
    bias = torch.zeros(()) if bias is None else bias
    return ((out - bias) * (scale(x) / scale(clean)) + bias).to(out)

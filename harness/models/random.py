"""Random weights in real architectures, built from a config: no download, every family, a byte-level tokenizer.

``tiny`` shapes serve the tests. The tokenizer knows the words of the built-in prompt sets as single tokens and
falls back to bytes, so any text can be encoded.
"""

from typing import Any

from harness.config import RequestError, near
from harness.models import Kind

#: What differs between the families; the rest is shared (see `_config`).
_TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_positions": 256, "n_embd": 48, "n_layer": 3, "n_head": 4}),
    "neox": ("GPTNeoXConfig", {}),
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 5}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "num_key_value_heads": 2,
            "head_dim": 16,
            "sliding_window": 5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "architectures": ["Gemma3ForCausalLM"],
        },
    ),
    "bert": ("BertConfig", {"architectures": ["BertForMaskedLM"]}),
}
_SHARED = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
}
SHAPES = tuple(_TINY)


def build(shape: str, seed: int) -> tuple[Any, Any, Kind]:
    """A random Hugging Face model, its tokenizer and its kind. The same seed gives the same weights."""
    import torch
    import transformers

    if shape not in _TINY:
        raise RequestError("model.shape", shape, near(shape, SHAPES))
    kind: Kind = "masked_lm" if shape == "bert" else "decoder"
    tokenizer = byte_tokenizer(f"random-{shape}", pairs=kind == "masked_lm")
    loader = transformers.AutoModelForMaskedLM if kind == "masked_lm" else transformers.AutoModelForCausalLM
    state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = loader.from_config(_config(shape, tokenizer), attn_implementation="eager")
        _spread(model)
    finally:
        torch.set_rng_state(state)
    return model, tokenizer, kind


def _config(shape: str, tokenizer: Any) -> Any:
    import transformers

    kind, own = _TINY[shape]
    shared = {} if shape == "gpt2" else _SHARED
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    return getattr(transformers, kind)(vocab_size=len(tokenizer), **shared, **own, **special)


def _spread(model: Any) -> None:
    """Make the weights large enough that heads attend unevenly and matter: the usual 0.02 is nearly uniform."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(6.0)


def byte_tokenizer(name: str, pairs: bool = False) -> Any:
    """A byte-level BPE tokenizer made in memory, whose merges spell the words of the built-in prompt sets.

    With `pairs` it frames texts as BERT's does, ``[CLS] a [SEP] b [SEP]``, and has a mask token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from harness.words import builtin_words

    vocabulary = {symbol: index for index, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in builtin_words():
        for end in range(1, len(word)):
            left, right = word[:end], word[end]
            if left + right not in vocabulary:
                merges.append((left, right))
                vocabulary[left + right] = len(vocabulary)
    for special in ("[CLS]", "[SEP]", "[MASK]") if pairs else ("<s>",):
        vocabulary[special] = len(vocabulary)
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if pairs:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")],
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=core, cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", name_or_path=name
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="<s>", name_or_path=name, add_bos_token=True
    )

"""Random weights in real architectures, built from a config without a download, with a byte-level tokenizer.

Most shapes are tiny and serve the tests; two have the size of models in use and serve the benchmark. The tokenizer
knows the words of the built-in prompt sets as single tokens and falls back to bytes, so any text can be encoded;
``bert_japanese`` has a real Japanese one, see `japanese`.
"""

from typing import Any

from harness.config import RequestError, near
from harness.models import Kind, japanese, output_kind

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
    "bert_japanese": ("BertConfig", {"architectures": ["BertForMaskedLM"]}),
    "bert_classifier": (
        "BertConfig",
        {
            "architectures": ["BertForSequenceClassification"],
            "id2label": {0: "negative", 1: "neutral", 2: "positive"},
        },
    ),
    "t5": (
        "T5Config",
        {
            "d_model": 48,
            "num_layers": 3,
            "num_decoder_layers": 2,
            "num_heads": 4,
            "d_kv": 10,
            "d_ff": 96,
            "architectures": ["T5ForConditionalGeneration"],
        },
    ),
}
#: GPT-2 small, and Llama 3.2 with a billion weights.
_IN_USE: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2-small": ("GPT2Config", {"vocab_size": 50257}),
    "llama-1b": (
        "LlamaConfig",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 8192,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
        },
    ),
}
_SHARED = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
}
SHAPES = (*_TINY, *_IN_USE)


def build(shape: str, seed: int) -> tuple[Any, Any, Kind]:
    """Build a random Hugging Face model, its tokenizer and its kind. The same seed gives the same weights."""
    import torch
    import transformers

    if shape not in SHAPES:
        raise RequestError("model.shape", shape, near(shape, SHAPES))
    tokenizer = _tokenizer(shape)
    settings = _config(shape, tokenizer)
    kind = output_kind.kind_of(settings, shape)
    state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = getattr(transformers, output_kind.LOADER[kind]).from_config(settings, attn_implementation="eager")
        if shape in _TINY:
            _spread(model)
    finally:
        torch.set_rng_state(state)
    return model, tokenizer, kind


def _tokenizer(shape: str) -> Any:
    name = f"random-{shape}"
    return japanese.tokenizer(name) if shape == "bert_japanese" else byte_tokenizer(name, shape.partition("_")[0])


def _config(shape: str, tokenizer: Any) -> Any:
    import transformers

    name, own = (_TINY | _IN_USE)[shape]
    shared = _SHARED if shape in _TINY and shape not in ("gpt2", "t5") else {}
    special = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    starts = {"decoder_start_token_id": tokenizer.pad_token_id} if shape == "t5" else {}
    return getattr(transformers, name)(**{"vocab_size": len(tokenizer), **shared, **own, **special, **starts})


def _spread(model: Any) -> None:
    """Scale the weights up so that heads attend unevenly: with the usual 0.02 patterns are nearly uniform.

    T5 starts with larger weights, and does not scale its scores.
    """
    import torch

    factor = 1.5 if model.config.is_encoder_decoder else 6.0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(factor)


#: Special tokens by family and how they frame a text and a pair; other families use one token as BOS and EOS.
_FRAMES: dict[str, dict[str, Any]] = {
    "bert": {
        "single": "[CLS] $A [SEP]",
        "pair": "[CLS] $A [SEP] $B:1 [SEP]:1",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    "t5": {"single": "$A </s>", "pair": "$A </s> $B </s>", "eos_token": "</s>", "pad_token": "<pad>"},
    "": {"bos_token": "<s>", "eos_token": "<s>", "add_bos_token": True},
}


def byte_tokenizer(name: str, like: str = "") -> Any:
    """Build a byte-level BPE tokenizer whose merges spell the words of the built-in prompt sets.

    `like` ``"bert"`` it frames texts as ``[CLS] a [SEP] b [SEP]`` and has a mask token, like ``"t5"`` as ``a </s>``.
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
    frame = dict(_FRAMES[like if like in _FRAMES else ""])
    marks = dict.fromkeys(token for key, token in frame.items() if key.endswith("_token") and isinstance(token, str))
    vocabulary |= {mark: len(vocabulary) + at for at, mark in enumerate(marks)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if "single" in frame:
        core.post_processor = processors.TemplateProcessing(
            single=frame.pop("single"),
            pair=frame.pop("pair"),
            special_tokens=[(mark, vocabulary[mark]) for mark in marks],
        )
    return PreTrainedTokenizerFast(tokenizer_object=core, name_or_path=name, **frame)

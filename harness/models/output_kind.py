"""Kinds of model output, read from the config, and heads that TransformerLens does not support.

TransformerLens boots decoders, T5, and BERT and RoBERTa with a masked-LM head. An encoder with another head, or none,
is put into its masked-LM class so that its blocks can be hooked; its own head is kept beside it.
"""

from collections.abc import Callable
from typing import Any

from harness.config import RequestError
from harness.models import Kind

LOADER: dict[Kind, str] = {
    "decoder": "AutoModelForCausalLM",
    "encoder_decoder": "AutoModelForSeq2SeqLM",
    "masked_lm": "AutoModelForMaskedLM",
    "classifier": "AutoModelForSequenceClassification",
    "embedding": "AutoModel",
}
#: Encoders whose blocks TransformerLens hooks.
ENCODERS = ("bert", "roberta")
#: Encoder-decoders whose hooked forward was verified.
ENCODER_DECODERS = ("t5", "mt5")


def kind_of(settings: Any, name: str) -> Kind:
    """Return the kind of a model's output. Raises `RequestError` for an unsupported family or head."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS

    family, architectures = settings.model_type, settings.architectures or []
    masked = any("MaskedLM" in architecture for architecture in architectures)
    if family in ENCODER_DECODERS:
        return "encoder_decoder"
    if family in ENCODERS:
        return "masked_lm" if masked else _other_head(settings, architectures, name)
    if settings.is_encoder_decoder or family not in DECODERS or masked:
        known = f"decoders, {', '.join(ENCODERS)} and {', '.join(ENCODER_DECODERS)}"
        raise RequestError("model", name, f"{family} is not among the families that can be studied: {known}")
    return "decoder"


def _other_head(settings: Any, architectures: list[str], name: str) -> Kind:
    if any(architecture.endswith("Model") and "LMHead" not in architecture for architecture in architectures):
        return "embedding"
    if not any("SequenceClassification" in architecture for architecture in architectures):
        remedy = f"its head {architectures} is not known: save it with a masked-LM or classification head, or none"
        raise RequestError("model", name, remedy)
    remedy = "it gives no distribution over labels (a regression, or many labels at once): save it without its head"
    if settings.num_labels < 2 or settings.problem_type in ("regression", "multi_label_classification"):
        raise RequestError("model", name, remedy)
    return "classifier"


def hookable(plain: Any, kind: Kind) -> Any:
    """Return the model in a class that TransformerLens hooks: encoders with other heads become masked-LMs."""
    if kind not in ("embedding", "classifier"):
        return plain
    from transformers import AutoModelForMaskedLM

    whole = AutoModelForMaskedLM.from_config(plain.config, attn_implementation="eager")
    setattr(whole, whole.base_model_prefix, plain.base_model)
    whole.config.architectures = [type(whole).__name__]
    return whole.eval().requires_grad_(False)


def head_of(plain: Any, kind: Kind) -> Callable[[Any], Any] | None:
    """Return the function from the last block's output [row, d_model] to the model's; ``None`` where the bridge has
    it."""
    if kind == "embedding":
        return lambda vector: vector
    if kind != "classifier":
        return None
    pooler, classifier = getattr(plain.base_model, "pooler", None), plain.classifier
    return lambda first: classifier(first[:, None] if pooler is None else pooler(first[:, None]))


def labels_of(settings: Any, kind: Kind) -> tuple[str, ...]:
    """Return the names of a classifier's labels, in the order of its logits."""
    return tuple(settings.id2label[at] for at in range(settings.num_labels)) if kind == "classifier" else ()

"""Bake: write an ablation of heads into a model's weights, and save it as an ordinary Hugging Face folder.

A head's z reaches the residual stream only through its columns of W_O. Zero-ablation is these columns set to zero,
scaling is these columns times the factor, and a mean that is the same at every position is what the columns make of it,
added to W_O's bias.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness import config, hooks
from harness.ablation.ablation_context import ablated
from harness.ablation.from_spec import AblationRequest, parse_ablation, reference_prompts
from harness.ablation.head_ablation import Heads
from harness.ablation.mean import POOLED, Mean
from harness.config import AblationSpec, MeanAblation, MemoryModel, PathModel, RequestError, ScaleAblation
from harness.hooks import Head
from harness.models import Inputs, cache, checks, load, sources
from harness.models.pooling import config_of
from harness.results import manifest, store

if TYPE_CHECKING:
    from harness.models import Model
    from harness.prompts import Prompts

PROVENANCE = "harness-provenance.json"
#: Largest file of weights; a larger model is saved in several.
SHARD = "5GB"
#: Prompts of the user's on which the checkpoint is compared, beside the texts of every load.
_COMPARED = 4
#: Room on the disk beside the weights, for tokenizer and configs.
_BESIDE = 32e6
#: Keys of Hugging Face configs that put a bias on the attention's linear layers, the one with the fewest first.
_BIAS_KEYS = ("attention_out_bias", "attention_bias", "use_bias", "bias")


@dataclass(frozen=True)
class Baked:
    """A checkpoint that `bake` wrote: its folder, and what stands in its provenance file.

    >>> import harness, tempfile
    >>> baked = harness.bake(harness.load_model("random"), "L0H1", "zero", tempfile.mkdtemp())
    >>> baked.provenance["baseline"], baked.provenance["check"]["largest_difference"] < 1e-5
    ('z becomes zero', True)
    """

    folder: Path
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        off = self.provenance["check"]["largest_difference"]
        return f"Baked({self.folder}: {self.provenance['baseline']}; off the hooked model by at most {off:.1e})"


def bake(
    model: "Model", heads: Heads, ablation: AblationRequest, to: str | Path, *, prompts: "Prompts | None" = None
) -> Baked:
    """Save a model with heads ablated in its weights as an ordinary Hugging Face folder, with its tokenizer.

    `ablation` is ``zero``, ``scale`` or a mean that is pooled over all positions, ``{"name": "mean", "means":
    "pooled"}``, of `prompts` (or of a named reference); a mean needs a family whose W_O can have a bias. `to` is a new
    folder, which `transformers` and `harness.load_model` load like any other. Its ``harness-provenance.json`` has the
    request, the SHA-256 of the weights before and after, and the largest difference of its logits (of hidden states,
    where there are none), loaded again by transformers, from those of the model inside `harness.ablated`. Weights keep
    their dtype and their ties.

    Raises `RequestError` for an ablation that depends on the position or on other prompts, a mean in a family without
    such a bias, a folder that is not empty, a disk that is full, and `ModelMismatch` where the checkpoint's logits are
    off by more than the model's tolerance; nothing is left at `to` then.

    >>> import harness, tempfile
    >>> model = harness.load_model("random", shape="gpt2")
    >>> baked = harness.bake(model, ["L0H1", "L2"], "zero", tempfile.mkdtemp())
    >>> baked.provenance["heads"]
    ['L0H1', 'L2H0', 'L2H1', 'L2H2', 'L2H3']
    >>> harness.load_model(baked.folder).shape.n_heads
    4
    """
    config.check_new("to", os.path.expanduser(to))
    to, spec = Path(to).expanduser(), parse_ablation(ablation)
    config.check_everywhere(spec, config.WEIGHTS)
    chosen = model.heads(heads)
    if model.inside:
        remedy = f"{model.inside['inside']} is in force here: leave its context, and bake these heads too"
        raise RequestError("model", model.name, remedy)
    plain = _plain(model)
    means, baseline = _means(model, chosen, spec, prompts)
    added = _with_bias(model, plain, chosen) if means else {}
    _check_room(to, plain)
    _write_weights(model, plain, chosen, spec, means)
    record = {
        "baseline": baseline,
        "heads": [str(head) for head in chosen],
        "ablation": asdict(spec),
        "prompts_sha256": None if prompts is None else prompts.sha256,
        "config": added,
        "model": {**asdict(model.spec), **model.identity},
        **manifest.environment(),
    }

    def save(folder: Path) -> dict[str, Any]:
        _save(model, plain, folder)
        compared = _compare(model, chosen, spec, prompts, folder)
        whole = {**record, "check": compared, "files": {path.name: cache.sha256(path) for path in _files(folder)}}
        text = json.dumps(whole, indent=1, ensure_ascii=False)
        (folder / PROVENANCE).write_text(text, encoding="utf-8")
        return json.loads(text)

    return Baked(to, _whole_or_nothing(to, save))


def _plain(model: "Model") -> Any:
    """Return a plain Hugging Face model with the weights of the hooked one, free to be changed."""
    if not isinstance(model.spec, MemoryModel):
        return load.plain_model(model.spec)
    if model.kind in ("classifier", "embedding"):
        remedy = "an encoder that came as an object was hooked without its own head: save_pretrained it, and load that"
        raise RequestError("model", model.name, remedy)
    from harness.models.in_memory import unwrapped

    return unwrapped(model.bridge).requires_grad_(False)


def _means(
    model: "Model", chosen: Sequence[Head], spec: AblationSpec, prompts: "Prompts | None"
) -> tuple[dict[Head, Float[Tensor, " d_head"]], str]:
    """Return the pooled mean of each head's z, none for another ablation, and the ablation in words."""
    if not isinstance(spec, MeanAblation):
        factor = spec.factor if isinstance(spec, ScaleAblation) else 0
        return {}, f"z is multiplied by {factor:g}" if factor else "z becomes zero"
    reference = reference_prompts(spec.reference, model, prompts)
    over = Mean(model, reference, reference, spec.reference, pooled=True)
    with model.alone():
        by_site = over.means(POOLED, list(dict.fromkeys(head.site for head in chosen)))
    return {head: by_site[head.site][0, 0, head.head] for head in chosen}, over.note(over.plan())


def _with_bias(model: "Model", plain: Any, chosen: Sequence[Head]) -> dict[str, Any]:
    """Give every W_O a bias of zeros where the family has a config key for it, and return the key that was changed.

    Other layers that the key gives a bias (those of Q, K and V in most families) get zeros too, so nothing changes.
    Raises `RequestError` where W_O cannot have one.
    """
    projections = [hooks.output_projection_of(plain, model.bridge, head.site) for head in chosen]
    if all(projection.bias is not None for projection in projections):
        return {}
    names = {module: name for name, module in plain.named_modules()}
    for key in _BIAS_KEYS:
        if getattr(plain.config, key, None) is not False:
            continue
        with torch.device("meta"):
            twin = type(plain)(type(plain.config)(**{**plain.config.to_dict(), key: True}))
        new = {name: twin.get_parameter(name) for name in twin.state_dict().keys() - plain.state_dict().keys()}
        if not {f"{names[projection]}.bias" for projection in projections} <= new.keys():
            continue
        for name, parameter in new.items():
            module, _, bias = name.rpartition(".")
            weight = plain.get_submodule(module).weight
            zeros = torch.zeros(parameter.shape, dtype=weight.dtype, device=weight.device)
            setattr(plain.get_submodule(module), bias, torch.nn.Parameter(zeros, requires_grad=False))
        setattr(plain.config, key, True)
        return {key: True}
    remedy = f"W_O has no bias in {type(plain).__name__}, and its config cannot give it one; use zero or scale"
    raise RequestError("ablation", "mean", remedy)


@torch.no_grad()
def _write_weights(
    model: "Model", plain: Any, chosen: Sequence[Head], spec: AblationSpec, means: dict[Head, Float[Tensor, " d_head"]]
) -> None:
    """Change the columns of W_O of these heads, and its bias for a mean."""
    factor = spec.factor if isinstance(spec, ScaleAblation) else 0.0
    for head in chosen:
        projection = hooks.output_projection_of(plain, model.bridge, head.site)
        weight = projection.weight if isinstance(projection, torch.nn.Linear) else projection.weight.T  # Conv1D
        columns = weight.unflatten(1, (model.shape.n_heads, -1))[:, head.head]
        if head in means:
            mean = means[head].to(columns).double()  # rounded to the weights' dtype, as the hooked model has it
            projection.bias.add_((columns.double() @ mean).to(projection.bias))
        columns.copy_(factor * columns if factor else torch.zeros_like(columns))


def _check_room(to: Path, plain: Any) -> None:
    """Raise `RequestError` where the disk cannot hold the weights."""
    there = next(each for each in (to, *to.absolute().parents) if each.exists())
    needed, free = plain.get_memory_footprint() + _BESIDE, shutil.disk_usage(there).free
    if needed > free:
        remedy = f"the checkpoint takes {needed / 1e9:.2f} GB and this disk has {free / 1e9:.2f} GB free"
        raise RequestError("to", to, f"{remedy}; choose another with to=DIR")


def _whole_or_nothing(to: Path, save: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Fill a folder of another name and rename it, so that a checkpoint is there whole or not at all."""
    with store.writing(to, "to"):
        part = to.absolute().parent / f".{to.absolute().name}.{os.getpid()}.part"
        part.mkdir(parents=True)
        try:
            made = save(part)
            with suppress(FileNotFoundError):
                to.rmdir()  # an empty folder, which some systems do not rename onto
            part.rename(to)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return made


def _save(model: "Model", plain: Any, folder: Path) -> None:
    """Write weights, configs and tokenizer, and a sentence encoder's pooling."""
    with load.quiet():
        plain.save_pretrained(folder, max_shard_size=SHARD)
        model.tokenizer.save_pretrained(folder)
    if model.kind == "embedding" and not isinstance(model.spec, MemoryModel):
        source = sources.local_folder(model.spec)
        pooling = config_of(source, model.name)
        for path in [*([pooling] if pooling else []), *source.glob("modules.json")]:
            copied = folder / path.relative_to(source)
            copied.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copied)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


@torch.no_grad()
def _compare(
    model: "Model", chosen: Sequence[Head], spec: AblationSpec, prompts: "Prompts | None", folder: Path
) -> dict[str, Any]:
    """Return how far the output of a saved checkpoint, loaded by transformers, is off the ablated model's.

    Raises `ModelMismatch` beyond the model's tolerance.
    """
    own = model.spec
    remote = getattr(own, "trust_remote_code", False)
    where = {"path": str(folder), "dtype": own.dtype, "device": own.device, "trust_remote_code": remote}
    plain = load.plain_model(PathModel(source="path", name=model.name, **where))
    rows = [*_probes(model, prompts, plain.config.vocab_size)]
    with ablated(model, chosen, spec, prompts=prompts), model.alone():
        pairs = [checks.largest_difference(model, inputs, checks.answer(plain, inputs, model.kind)) for inputs in rows]
    largest, scale = (max(each) for each in zip(*pairs, strict=True))
    allowed = checks.allowed_difference(model) * scale
    if not largest <= allowed:
        remedy = f"the checkpoint's output is off the ablated model's by {largest:.2g} (allowed: {allowed:.2g})"
        raise checks.ModelMismatch("model", model.name, f"{remedy}, so it is not kept")
    return {
        "largest_difference": largest,
        "allowed": allowed,
        "largest_value": scale,
        "texts": sum(len(inputs.token_id) for inputs in rows),
        "against": "the same output of the model inside harness.ablated",
    }


def _probes(model: "Model", prompts: "Prompts | None", d_vocab: int) -> Iterator[Inputs]:
    """Yield the inputs on which a checkpoint is compared: the texts of every load, and the first of the prompts."""
    yield checks.probe(model.tokens, d_vocab, model.kind, torch.device(model.device))
    if prompts is not None:
        yield replace(prompts.take(list(range(min(_COMPARED, len(prompts))))).inputs(model.device), segment=None)

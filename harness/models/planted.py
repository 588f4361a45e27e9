r"""A small GPT-2 with weights set by hand, so that the effect of each head is known beforehand.

**The task.** ``[BOS] t_1 … t_r t_1 … t_r``, the t distinct ordinary tokens. Standing on the second t_j the model
predicts t_{j+1}; so tokens 2..r of the repeat are scored (positions r + 2 .. 2r, predicted at r + 1 .. 2r − 1). The
repeat's first token is not: nothing in the text announces it.

**The circuit** is the one of Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", and Olsson et al.
2022, "In-context Learning and Induction Heads": a previous-token head in layer 0, and an induction head in layer 1
that reads what the former wrote (K-composition).

**The algebra.** The residual stream has d_model = 240 dense random axes, split into orthogonal subspaces that are all
orthogonal to (1, …, 1), so that LayerNorm's centring takes nothing away:

====================  ====  ==========================================================================
`_Space`              axes  holds, for position i with token t
====================  ====  ==========================================================================
``token``             40    s e_t, from the token embedding; the e_t have norm 1
``place``             40    s p_i, from the position embedding; p_i is axis i, p_{i+40} = −p_i, so that
                            80 orthogonal-or-opposite places fit, and "one place back" is a linear map
``previous``          40    s e of token i − 1, written by layer 0's previous-token heads
``answer``            40    s e of the token to come, written by layer 1; the only subspace unembedded
``constant``          1     C at every position, C² = d_model − 2 s²
====================  ====  ==========================================================================

C makes each embedded token's norm √d_model, so LayerNorm is the identity in layer 0, and since C dominates, it
shrinks later streams by 2 % (10 % in `redundant`) whatever the heads wrote: each acts nearly alone. MLPs are zero.
Scores below are at that norm, after GPT-2's 1/√d_head; V reads s e_t, O writes it, both with the identity between.

- *previous token*: Q reads place, shifts one back; K reads place; score `match_place` at offset −1, its negative at
  −41, 0 elsewhere. V reads token, O writes previous.
- *induction*: Q reads token, K reads previous; score `match_token` ⟨e_t, e_prev(j)⟩. V reads token, O writes answer.
  Where nothing matches (first half) it looks everywhere alike.
- *unembedding*: logit of u is `readout` ⟨e_u, answer⟩ / s. With nothing written the logits are flat: ln 40 nats.
- *harmful*: V reads constant, O writes `harmful_vote` · s e_BOS into answer, always: BOS is never right here. (Being
  always the same, it hurts under zero-ablation only: its mean, or another prompt's, is what it writes anyway.)
- *positional*: the position embedding of one place P carries `stray_vote` · s e_BOS in answer (taken out of its
  constant, the norm stays); the head, in layer 0, takes that back. Q and K read it: score +`match_place` from P to P
  and −`match_place` from elsewhere to P, so its z is 0 but at query P.
- *backup*: an induction head in a layer after it, whose Q also reads how much is in answer, against K of the BOS token
  (axis 0, where ordinary tokens have nothing): score `match_backup` to BOS once something is written there, 0 without.
  V leaves BOS out. So its z is 0 with the induction head, and all that the induction head writes without it.
- *bystanders* (and harmful heads) attend by random bilinear scores of tokens, of variance 1: diffuse, alike in no way.
  V reads token at random; O is exactly zero, or `chatter` times a random map into answer.

**The variants** (`_DESIGNS`). `sharp`: both softmaxes saturated, the bystanders' effect exactly 0, the gradient lost.
`soft`: scores small enough for gradients, token vectors a little alike (`crosstalk`), so that prompts differ.
`redundant`: two induction heads, either enough to saturate the readout in fp32; *three* previous-token heads, any
enough: with two, they would be a second redundant pair, with one, a single effect. `harmful`: `soft` and one harmful
head. `positional`: `sharp` and one positional head. `backup`: `sharp` with a third layer and one backup head in it.

Padding goes on the right (places are absolute). Longest text: 80 tokens, so r ≤ 39.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from harness.config import RequestError
from harness.hooks import Head

if TYPE_CHECKING:
    import transformers

Variant = Literal["sharp", "soft", "redundant", "harmful", "positional", "backup"]

BOS = 0
N_TOKENS = 40  # BOS and 39 ordinary tokens; also the axes of a subspace and of a head
N_PLACES = 2 * N_TOKENS
N_LAYERS, N_HEADS = 2, 6
D_MODEL = N_HEADS * N_TOKENS
REPEATS = range(16, 21)

_SIZE = 2.0  # s above
_CONSTANT = math.sqrt(D_MODEL - 2 * _SIZE**2)  # C above
_SALT = 67  # with it, seed 3 has the heads that the contract shows


@dataclass(frozen=True)
class PlantedWeights:
    """A hand-set model and its ground truth.

    `truth`: role to its heads, in order: ``previous_token``, ``induction`` and, by variant, ``redundant`` (the
    induction heads again), ``harmful``, ``positional`` or ``backup``. `position`: the only query position at which the
    positional head matters; BOS is position 0. `bos`: the first token of every prompt; all other ids below `vocab_size`
    are ordinary. `repeats`: how many tokens a prompt should repeat, at least and at most, so that the prediction made
    at `position` is scored in each, and the losses are those the tests promise. Other r ≤ 39 work; `soft` and `harmful`
    lose more with more.
    """

    model: "transformers.GPT2LMHeadModel"
    truth: Mapping[str, list[Head]]
    position: int | None
    vocab_size: int = N_TOKENS
    bos: int = BOS
    repeats: tuple[int, int] = (REPEATS[0], REPEATS[-1])


@dataclass(frozen=True)
class _Design:
    """Parameters of a variant; the module's docstring explains the names."""

    previous_heads: int = 1
    induction_heads: int = 1
    match_place: float = 120.0
    match_token: float = 40.0
    readout: float = 12.0
    crosstalk: float = 0.0
    chatter: float = 0.0
    harmful_vote: float = 0.0
    stray_vote: float = 0.0
    match_backup: float = 0.0

    @property
    def n_layers(self) -> int:
        return N_LAYERS + bool(self.match_backup)


_SHARP = _Design()
_SOFT = _Design(match_place=6.0, match_token=5.6, readout=5.9, crosstalk=0.14, chatter=0.05)
_DESIGNS: dict[str, _Design] = {
    "sharp": _SHARP,
    "soft": _SOFT,
    "redundant": _Design(previous_heads=3, induction_heads=2, readout=24.0),
    "harmful": replace(_SOFT, harmful_vote=0.9),
    "positional": replace(_SHARP, stray_vote=1.5),
    "backup": replace(_SHARP, match_backup=120.0),
}


class _Space(NamedTuple):
    """Orthonormal rows that split the residual stream, all orthogonal to (1, …, 1)."""

    token: Float[np.ndarray, "axis d_model"]
    place: Float[np.ndarray, "axis d_model"]
    previous: Float[np.ndarray, "axis d_model"]
    answer: Float[np.ndarray, "axis d_model"]
    constant: Float[np.ndarray, " d_model"]


class _Weights(NamedTuple):
    """One head: z = pattern · x V, written as z O; scores x_i Q · x_j K / √d_head."""

    q: Float[np.ndarray, "d_model d_head"]
    k: Float[np.ndarray, "d_model d_head"]
    v: Float[np.ndarray, "d_model d_head"]
    o: Float[np.ndarray, "d_head d_model"]


def build(seed: int, variant: str) -> PlantedWeights:
    """Build the planted model of a seed, which draws the heads of the circuit, the axes and the tokens.

    Eager attention, evaluation mode, fp32. Neither numpy's nor torch's global random state is used or changed.
    Raises `RequestError` for an unknown variant.
    """
    if variant not in _DESIGNS:
        raise RequestError("model.variant", variant, f"use one of {', '.join(get_args(Variant))}")
    design = _DESIGNS[variant]
    rng = np.random.default_rng([_SALT, seed])
    truth = _truth(rng, design)
    # Scored for every number of repeats promised, whatever the seed.
    position = int(rng.integers(REPEATS[-1] + 1, 2 * REPEATS[0])) if design.stray_vote else None
    space = _space(rng)
    tokens = _token_vectors(rng, design.crosstalk)
    heads = _heads(rng, design, truth, space, tokens[BOS] @ space.answer)
    embeddings = {
        "transformer.wte.weight": _SIZE * tokens @ space.token,
        "transformer.wpe.weight": _place_embedding(space, tokens[BOS] @ space.answer, design.stray_vote, position),
        "lm_head.weight": design.readout / _SIZE * tokens @ space.answer,
    }
    return PlantedWeights(_assemble(embeddings | _attention(heads), design.n_layers), truth, position)


def tokenizer() -> Any:
    """Build a tokenizer of BOS and 39 syllables, each with its leading space; its unknown token has no embedding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    syllables = [f" {consonant}{vowel}" for consonant in "bdfgklmnprstv" for vowel in "aio"]
    vocabulary = {token: number for number, token in enumerate(["<s>", *syllables, "<unk>"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="<s>",
        unk_token="<unk>",
        name_or_path="planted",
        add_bos_token=True,
    )


def _truth(rng: np.random.Generator, design: _Design) -> dict[str, list[Head]]:
    first, second, *later = (
        [Head(layer, int(head)) for head in rng.permutation(N_HEADS)] for layer in range(design.n_layers)
    )
    truth = {
        "previous_token": sorted(first[: design.previous_heads]),
        "induction": sorted(second[: design.induction_heads]),
    }
    if design.induction_heads > 1:
        truth["redundant"] = list(truth["induction"])
    if design.harmful_vote:
        truth["harmful"] = [second[-1]]
    if design.stray_vote:
        truth["positional"] = [first[-1]]
    if design.match_backup:
        truth["backup"] = [later[0][0]]
    return truth


def _space(rng: np.random.Generator) -> _Space:
    """Return a discrete cosine basis without its constant row, shuffled: exact, and equal on all machines."""
    rows, columns = rng.permutation(np.arange(1, D_MODEL)), rng.permutation(D_MODEL)
    axes = math.sqrt(2 / D_MODEL) * np.cos(np.pi / D_MODEL * np.outer(rows, columns + 0.5))
    token, place, previous, answer = axes[: 4 * N_TOKENS].reshape(4, N_TOKENS, D_MODEL)
    return _Space(token, place, previous, answer, axes[4 * N_TOKENS])


def _token_vectors(rng: np.random.Generator, crosstalk: float) -> Float[np.ndarray, "token axis"]:
    """Return one vector of norm 1 per token; orthogonal but for `crosstalk`, about the spread of their cosines."""
    vectors = np.eye(N_TOKENS) + crosstalk * rng.standard_normal((N_TOKENS, N_TOKENS))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _place_embedding(
    space: _Space, vote: Float[np.ndarray, " d_model"], stray_vote: float, position: int | None
) -> Float[np.ndarray, "place d_model"]:
    embedding = _SIZE * np.vstack([space.place, -space.place]) + _CONSTANT * space.constant
    if position is not None:
        stray = stray_vote * _SIZE
        embedding[position] += stray * vote + (math.sqrt(_CONSTANT**2 - stray**2) - _CONSTANT) * space.constant
    return embedding


def _heads(
    rng: np.random.Generator,
    design: _Design,
    truth: dict[str, list[Head]],
    space: _Space,
    vote: Float[np.ndarray, " d_model"],
) -> dict[Head, _Weights]:
    heads = {
        Head(layer, head): _bystander(rng, space, design.chatter)
        for layer in range(design.n_layers)
        for head in range(N_HEADS)
    }
    heads |= {head: _previous_token_head(space, design.match_place) for head in truth["previous_token"]}
    heads |= {head: _induction_head(space, design.match_token) for head in truth["induction"]}
    for head in truth.get("harmful", []):
        heads[head] = _harmful_head(heads[head], space, vote, design.harmful_vote)
    for head in truth.get("positional", []):
        heads[head] = _positional_head(space, vote, design)
    heads |= {head: _backup_head(space, design) for head in truth.get("backup", [])}
    return heads


def _for_score(score: float) -> float:
    """Return the factor on Q that gives this score between equal vectors of norm s."""
    return score * math.sqrt(N_TOKENS) / _SIZE**2


def _bystander(rng: np.random.Generator, space: _Space, chatter: float) -> _Weights:
    q, k, v = rng.standard_normal((3, N_TOKENS, N_TOKENS)) / _SIZE
    o = rng.standard_normal((N_TOKENS, N_TOKENS)) / N_TOKENS
    read = space.token.T
    return _Weights(read @ q, read @ k, read @ v, chatter * _SIZE * o @ space.answer)


def _previous_token_head(space: _Space, score: float) -> _Weights:
    one_back = np.vstack([space.place[1:], -space.place[:1]])
    return _Weights(_for_score(score) * one_back.T, space.place.T, space.token.T, space.previous)


def _induction_head(space: _Space, score: float) -> _Weights:
    return _Weights(_for_score(score) * space.token.T, space.previous.T, space.token.T, space.answer)


def _harmful_head(bystander: _Weights, space: _Space, vote: Float[np.ndarray, " d_model"], strength: float) -> _Weights:
    axis = np.eye(N_TOKENS)[0]
    v = np.outer(space.constant, axis) / _CONSTANT
    return bystander._replace(v=v, o=np.outer(axis, strength * _SIZE * vote))


def _positional_head(space: _Space, vote: Float[np.ndarray, " d_model"], design: _Design) -> _Weights:
    axis = np.eye(N_TOKENS)[0]
    strayed = vote / (design.stray_vote * _SIZE)  # reads 1 at the position, 0 elsewhere
    q = design.match_place * math.sqrt(N_TOKENS) * (2 * strayed - space.constant / _CONSTANT)
    return _Weights(np.outer(q, axis), np.outer(strayed, axis), np.outer(vote, axis), -np.outer(axis, vote))


def _backup_head(space: _Space, design: _Design) -> _Weights:
    """Return an induction head that is drawn to BOS by whatever is in answer (`crosstalk` 0: token u is axis u)."""
    head, bos = _induction_head(space, design.match_token), np.eye(N_TOKENS)[0]
    written = _for_score(design.match_backup) * space.answer.sum(axis=0)
    q = head.q * (1 - bos) + np.outer(written, bos)
    k = head.k * (1 - bos) + np.outer(space.token[0], bos)
    return _Weights(q, k, head.v * (1 - bos), head.o)


def _attention(heads: dict[Head, _Weights]) -> dict[str, Float[np.ndarray, "..."]]:
    """Return GPT-2's `c_attn` [d_model, 3 d_model] (q, k, v, each head by head) and `c_proj` [d_model, d_model]."""
    state = {}
    for layer in sorted({head.layer for head in heads}):
        mine = [heads[Head(layer, head)] for head in range(N_HEADS)]
        reads = [part for kind in ("q", "k", "v") for part in (getattr(weights, kind) for weights in mine)]
        state[f"transformer.h.{layer}.attn.c_attn.weight"] = np.hstack(reads)
        state[f"transformer.h.{layer}.attn.c_proj.weight"] = np.vstack([weights.o for weights in mine])
    return state


def _assemble(state: dict[str, Float[np.ndarray, "..."]], n_layers: int) -> "transformers.GPT2LMHeadModel":
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(
        vocab_size=N_TOKENS,
        n_positions=N_PLACES,
        n_embd=D_MODEL,
        n_layer=n_layers,
        n_head=N_HEADS,
        n_inner=N_TOKENS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=BOS,
        eos_token_id=BOS,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):  # the initial random weights are overwritten
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in state:
                parameter.copy_(torch.from_numpy(state[name]))
            elif ".ln_" not in name:
                parameter.zero_()
    return model

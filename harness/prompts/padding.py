"""Pad prompts to one length with their attention masks."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from harness import config
from harness.config import RequestError
from harness.models import Inputs, Kind, Model
from harness.models.tokens import Encoding
from harness.prompts.display import as_table, describe
from harness.prompts.prompt import NOUN, Prompt
from harness.prompts.relations import Relation
from harness.words import Words, joined

if TYPE_CHECKING:
    from harness.prompts.choices import Choices

Ids = Int[np.ndarray, "prompt position"]


@dataclass(frozen=True)
class Source:
    """Source texts of an encoder-decoder: [prompt, source_position], padded on the right as in `Prompts`."""

    token_id: Ids
    token: np.ndarray
    word: Ids
    word_text: np.ndarray
    sentence: Ids
    special: Bool[np.ndarray, "prompt position"]

    @property
    def length(self) -> Int[np.ndarray, " prompt"]:
        return (self.token_id >= 0).sum(axis=1)

    def take(self, rows: Int[np.ndarray, " row"]) -> "Source":
        """Return the texts of these rows, padded to the longest of them."""
        end = int(self.length[rows].max())
        return Source(**{name: array[rows, :end] for name, array in vars(self).items()})


@dataclass(frozen=True, repr=False)
class Prompts:
    """A padded batch of prompts for a model of some kind.

    `token_id`, `token`, `word`, `word_text`, `sentence`, `special`, `target` and `correct` are [prompt, position],
    padded on the right with −1, ``""``, −1, ``""``, −1, False, False and −1. `word_text` has a word as it stands in the
    text at its first token and ``""`` at its others; `words_by` names the segmentation methods. `sentence` is 1 in the
    second text of a pair, and `segment` holds the token type ids that the model reads. `target` marks the positions
    whose prediction is scored: of the next token or, for a masked-LM, the masked one; `correct` is that token. A
    classifier's label is predicted at its first position. `answer` and `distractor` are token ids or labels (−1 where
    there is none), `counterfactual` [prompt, position] token ids (−1 where there is none).

    An encoder-decoder reads `source` and writes the tokens; its counterfactual replaces the source. `tags` are copied
    to the results; `relations` hold between the words of the text that is read, `part` [prompt, position] names the
    segment of each token (``""``: none), `role` [prompt, position] what it is in its prompt set (``""``: unnamed).
    """

    name: str
    kind: Kind
    text: tuple[str, ...]
    token_id: Ids
    token: np.ndarray
    word: Ids
    word_text: np.ndarray
    sentence: Ids
    special: Bool[np.ndarray, "prompt position"]
    segment: Ids
    correct: Ids
    cluster: tuple[str, ...]
    answer: Int[np.ndarray, " prompt"]
    distractor: Int[np.ndarray, " prompt"]
    counterfactual: Int[np.ndarray, "prompt counterfactual_position"]
    part: np.ndarray
    role: np.ndarray
    answer_text: tuple[str, ...]
    distractor_text: tuple[str, ...]
    source: Source | None = None
    tags: tuple[Mapping[str, str], ...] = ()
    words_by: tuple[str, ...] = ()
    relations: tuple[tuple[Relation, ...], ...] = ()
    #: The completions of items of a choice; None for other prompts.
    choices: "Choices | None" = None
    #: The fingerprint of the tokenizer (`harness.models.tokens.Tokens.fingerprint`).
    tokenizer: str = ""
    #: The spec that loads these prompts; None for some of them (`take`).
    spec: Any = None

    def __len__(self) -> int:
        return len(self.text)

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return as_table(self)

    @property
    def length(self) -> Int[np.ndarray, " prompt"]:
        return (self.token_id >= 0).sum(axis=1)

    @property
    def has_choices(self) -> bool:
        return self.choices is not None

    @property
    def n_rows(self) -> Int[np.ndarray, " prompt"]:
        """The rows that a model is run on for each prompt: one, or one for each choice; of a masked-LM one for each of
        the scored tokens of these."""
        rows, owner = self.by_choice()
        each = rows.target.sum(axis=1) if self.kind == "masked_lm" else np.ones(len(rows), dtype=int)
        return np.bincount(owner, weights=each, minlength=len(self)).astype(int)

    @property
    def lengths(self) -> Int[np.ndarray, "text prompt"]:
        """The lengths of each prompt's texts: the tokens and, where there is one, the source."""
        return np.stack([self.length] if self.source is None else [self.length, self.source.length])

    @property
    def width(self) -> Int[np.ndarray, " prompt"]:
        """The length of the longest of each prompt's texts, those with other choices included."""
        rows, owner = self.by_choice()
        width = np.zeros(len(self), dtype=int)
        np.maximum.at(width, owner, rows.lengths.max(axis=0))
        return width

    @property
    def target(self) -> Bool[np.ndarray, "prompt position"]:
        return self.correct >= 0

    @property
    def has_parts(self) -> bool:
        return bool((self.part != "").any())

    @property
    def has_answer(self) -> bool:
        return bool((self.answer >= 0).all())

    @property
    def has_distractor(self) -> bool:
        return bool((self.distractor >= 0).all())

    @property
    def read(self) -> Ids:
        """The tokens that a counterfactual replaces: the source, where there is one."""
        return self.queries("encoder")

    def queries(self, stack: str) -> Ids:
        """Return the tokens at which the heads of a stack have a query, and a z."""
        return self.source.token_id if stack == "encoder" and self.source is not None else self.token_id

    def by_choice(self) -> tuple["Prompts", Int[np.ndarray, " row"]]:
        """Return a row for each choice of each prompt and the prompt of each row: the prompts themselves where there is
        no choice."""
        if self.choices is None:
            return self, np.arange(len(self))
        return self.choices.rows, self.choices.owner

    def check_model(self, model: Model) -> None:
        """Raise `RequestError` for a model with another tokenizer or kind of output than the prompts'."""
        if self.kind != model.kind:
            reason = (
                f"they were made for {NOUN[self.kind]} ({self.kind}), and {model.name} is another kind ({model.kind})"
            )
        elif self.tokenizer != model.tokens.fingerprint:
            reason = f"they were made with another tokenizer than {model.name}'s, to which their ids are other tokens"
        else:
            return
        raise RequestError("prompts", self.name, f"{reason}: make them with harness.load_prompts(…, {model.name})")

    def reading(self, token_id: Ids) -> "Prompts":
        """Return the prompts with other tokens in place of those of `read`."""
        if self.source is None:
            return replace(self, token_id=token_id)
        return replace(self, source=replace(self.source, token_id=token_id))

    def swapped(self) -> "Prompts":
        """Return the prompts that read their counterfactuals, whose counterfactuals are what these read; answers and
        scored positions stay."""
        return replace(self.reading(self.counterfactual), counterfactual=self.read)

    def inputs(self, device: Any) -> Inputs:
        """Return the prompts as the inputs of a model."""
        import torch

        def tensors(ids: Ids) -> tuple[Any, Any]:
            there = torch.as_tensor(ids, device=device)
            return there.clamp(min=0), (there >= 0).long()

        segment = torch.as_tensor(self.segment, device=device)
        source = (None, None) if self.source is None else tensors(self.source.token_id)
        return Inputs(*tensors(self.token_id), segment, *source)

    def take(self, index: Sequence[int] | Int[np.ndarray, " row"]) -> "Prompts":
        """Return the prompts at these indices, padded to the longest of them."""
        rows = np.asarray(index, dtype=int)
        end, read = int(self.length[rows].max()), int((self.read >= 0).sum(axis=1)[rows].max())
        source = None if self.source is None else self.source.take(rows)
        changed: dict[str, Any] = {"source": source, "spec": None}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                upto = read if item.name == "counterfactual" else end
                changed[item.name] = value[rows, :upto] if value.ndim == 2 else value[rows]
            elif isinstance(value, tuple) and item.name != "words_by":
                changed[item.name] = tuple(value[row] for row in rows)
        if self.choices is not None:
            changed["choices"] = self.choices.take(rows)
        return replace(self, **changed)

    def dataset(self) -> xr.Dataset:
        """Return the prompts as labelled arrays, named as in ``data.zarr``."""
        kept = ("token", "token_id", "word", "word_text", "sentence", "special", "target", "correct")
        grids = {name: getattr(self, name) for name in kept}
        rows = {
            "length": self.length,
            "text": np.array(list(map(_read, self.word_text, self.sentence)), dtype=np.dtypes.StringDType()),
            "cluster": np.array(self.cluster, dtype=np.dtypes.StringDType()),
            "answer": np.array(self.answer_text, dtype=np.dtypes.StringDType()),
            "distractor": np.array(self.distractor_text, dtype=np.dtypes.StringDType()),
        }
        variables: dict[str, Any] = {name: (("prompt", "position"), array) for name, array in grids.items()}
        if self.source is not None:
            rows["source_length"] = self.source.length
            for name, array in vars(self.source).items():
                variables[f"source_{name}"] = (("prompt", "source_position"), array)
        variables |= {name: (("prompt",), array) for name, array in rows.items()}
        if any(self.relations):
            texts = [json.dumps(each, ensure_ascii=False) for each in self.relations]
            note = {"units": "[name, word of the head, word of the dependent], JSON"}
            variables["relations"] = (("prompt",), np.array(texts, dtype=np.dtypes.StringDType()), note)
        if self.has_parts:
            variables["token_part"] = (("prompt", "position"), self.part)
        if (self.role != "").any():
            variables["token_role"] = (("prompt", "position"), self.role)
        variables["word"] = (*variables["word"], {"method": "; ".join(self.words_by)})
        if self.choices is not None:
            variables |= self.choices.variables()
        names = list(self.tags[0]) if self.tags else []
        if names:
            values = [[tags[name] for name in names] for tags in self.tags]
            variables["tags"] = (("prompt", "tag"), np.array(values, dtype=np.dtypes.StringDType()))
        return xr.Dataset(variables, coords={"tag": names} if names else None)

    @property
    def sha256(self) -> str:
        """The SHA-256 of everything in the prompts that changes a number."""
        state = hashlib.sha256()
        source = [] if self.source is None else [self.source.token_id]
        own = (self.token_id, self.segment, self.correct, self.answer, self.distractor, self.counterfactual)
        masked = [self.word] if self.kind == "masked_lm" else []  # its later pieces are masked with a token
        for array in (*own, *source, *masked):
            state.update(np.ascontiguousarray(array, dtype=np.int64).tobytes() + str(array.shape).encode())
        state.update("\0".join(self.cluster).encode())
        if self.has_parts:
            state.update("\0".join(self.part.ravel()).encode())
        if any(self.relations):
            state.update(str(self.relations).encode())
        if self.choices is not None:
            state.update(self.choices.rows.sha256.encode() + self.choices.right.tobytes())
        return state.hexdigest()


def _read(word_text: np.ndarray, sentence: Int[np.ndarray, " position"]) -> str:
    """Join the words of a prompt to its text; a pair as ``a | b``."""
    return " | ".join(joined(word_text[sentence == number]) for number in range(sentence.max() + 1))


def pad(name: str, made: Sequence[Prompt], model: Model, scored: bool = True) -> Prompts:
    """Pad prompts on the right to one length. Raises `RequestError` for one without a `scored` token."""
    for number, prompt in enumerate(made if scored else ()):
        _check_scored(number, prompt, model)
    end = max(len(prompt.encoded.token_id) for prompt in made)
    read = [prompt.source for prompt in made if prompt.source is not None]
    source = _grids(read, [prompt.source_words for prompt in made if prompt.source_words is not None]) if read else None
    read_to = end if source is None else source.token_id.shape[1]

    def string(answer: int | None) -> str:
        if answer is None:
            return ""
        return model.labels[answer] if model.kind == "classifier" else model.tokens.string(answer)

    return Prompts(
        name=name,
        kind=model.kind,
        text=tuple(prompt.text for prompt in made),
        **vars(_grids([prompt.encoded for prompt in made], [prompt.words for prompt in made])),
        segment=_grid([prompt.encoded.segment for prompt in made], 0, np.int64),
        correct=_grid([[prompt.correct.get(at, -1) for at in range(end)] for prompt in made], -1, np.int64),
        cluster=tuple(prompt.cluster for prompt in made),
        answer=np.array([-1 if prompt.answer is None else prompt.answer for prompt in made]),
        distractor=np.array([-1 if prompt.distractor is None else prompt.distractor for prompt in made]),
        counterfactual=_grid([prompt.counterfactual or () for prompt in made], -1, np.int64, read_to),
        part=_grid([prompt.part for prompt in made], "", np.dtypes.StringDType(), end),
        role=_grid([prompt.role for prompt in made], "", np.dtypes.StringDType(), end),
        answer_text=tuple(string(prompt.answer) for prompt in made),
        distractor_text=tuple(string(prompt.distractor) for prompt in made),
        source=source,
        tags=tuple(prompt.tags for prompt in made),
        relations=tuple(prompt.relations for prompt in made),
        words_by=tuple(dict.fromkeys(way for prompt in made for way in _ways(prompt))),
        tokenizer=model.tokens.fingerprint,
    )


def _check_scored(number: int, prompt: Prompt, model: Model) -> None:
    if prompt.correct or model.kind == "embedding":
        return
    remedy = "make it longer"
    if model.kind == "encoder_decoder":
        remedy = "set what it should write: prompts.target=…, prompts.answer=… or prompts.generate=n"
    raise RequestError("prompts", config.quoted(prompt.text), f"prompt {number} has no token to predict: {remedy}")


def _ways(prompt: Prompt) -> tuple[str, ...]:
    """Return the names of the methods that segmented the prompt's words."""
    return prompt.words.ways + (prompt.source_words.ways if prompt.source_words else ())


def _grids(made: Sequence[Encoding], words: Sequence[Words]) -> Source:
    """Pad the per-token arrays of several texts."""
    return Source(
        token_id=_grid([each.token_id for each in made], -1, np.int64),
        token=_grid([each.token for each in made], "", np.dtypes.StringDType()),
        word=_grid([each.index for each in words], -1, np.int64),
        word_text=_grid([each.text for each in words], "", np.dtypes.StringDType()),
        sentence=_grid([each.sentence for each in made], -1, np.int64),
        special=_grid([each.special for each in made], False, np.bool_),
    )


def _grid(rows: Sequence[Sequence[Any]], fill: Any, dtype: Any, end: int = 0) -> np.ndarray:
    end = max(end, *(len(row) for row in rows))
    return np.array([[*row, *[fill] * (end - len(row))] for row in rows], dtype=dtype)

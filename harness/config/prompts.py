"""Specs of prompt sets."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from harness.config.errors import RequestError
from harness.config.types import Count, Names, PathText, PositiveInt, Seed, Text, spec

TokenIds = tuple[Annotated[int, Field(ge=0, strict=True)], ...]


@spec
class IoiPrompts:
    """Indirect-object identification: `n` prompts from templates with two names, the answer being the other one."""

    name: Literal["ioi"]
    """Which of the options this is."""
    n: PositiveInt = 32
    """Number of prompts."""
    seed: Seed = 0
    """Seed of the draw."""
    names: Names | None = None
    """First names to draw from, single tokens; null: a list of 34."""


@spec
class InductionPrompts:
    """`length` random tokens, then the same again; the second half is scored."""

    name: Literal["induction"]
    """Which of the options this is."""
    n: PositiveInt = 8
    """Number of prompts."""
    seed: Seed = 0
    """Seed of the draw."""
    length: Annotated[int, Field(ge=2)] = 24
    """Number of random tokens that are repeated."""


@spec
class InlinePrompts:
    """Texts written in the request; without an answer or target every predicted token is scored.

    Each tag of `words` is a segment of the prompt, to which a prediction is traced.
    """

    name: Literal["inline"]
    """Which of the options this is."""
    text: Names
    """Texts."""
    pair: Names | None = None
    """Second sentence of each text."""
    target: Names | None = None
    """What an encoder-decoder writes to each text; all of it is scored."""
    answer: Names | None = None
    """Token after each text (of a masked-LM at its mask token, of a classifier the label): it alone is scored."""
    distractor: Names | None = None
    """Token that each answer is compared with, for logit_diff."""
    cluster: Names | None = None
    """Name for each text; texts of one name are variants of each other, resampled together."""
    relations: Names | None = None
    """Syntactic relations of each text: nsubj(barked, dog); det(dog, the#2)."""
    counterfactual: Names | None = None
    """Corrupted text for each text, as long in tokens, for ablation=patch."""
    words: Mapping[str, Names] = Field(default_factory=dict)
    """Tagged words, {emotion: [glad, angry]}; pronoun, function and punctuation have lists of their own."""
    tags: Mapping[str, Names] = Field(default_factory=dict)
    """Values of each text to copy to the results, {topic: [a, b]}."""
    chat: bool = False
    """Each text is a user's message, put into the tokenizer's chat template."""
    generate: Count = 0
    """Number of tokens that the model first writes greedily, which are then scored."""


@spec
class TokenIdPrompts:
    """Prompts as token ids of the model's tokenizer, used as they are: no special token is added."""

    name: Literal["token_ids"]
    """Which of the options this is."""
    token_id: tuple[TokenIds, ...]
    """Token ids of each prompt."""
    target: Names | None = None
    """What an encoder-decoder writes to each text; all of it is scored."""
    answer: Names | None = None
    """Token after each text (of a masked-LM at its mask token, of a classifier the label): it alone is scored."""
    distractor: Names | None = None
    """Token that each answer is compared with, for logit_diff."""
    cluster: Names | None = None
    """Name for each text; texts of one name are variants of each other, resampled together."""
    counterfactual: tuple[TokenIds, ...] | None = None
    """Corrupted token ids for each prompt, as many, for ablation=patch."""
    generate: Count = 0
    """Number of tokens that the model first writes greedily, which are then scored."""


@spec
class ProsePrompts:
    """Passages of prose, every predicted token scored."""

    name: Literal["prose"]
    """Which of the options this is."""
    language: Literal["en", "ja"] = "en"
    """Language of the passages."""
    n: PositiveInt = 8
    """Number of passages."""
    seed: Seed = 0
    """Seed of the draw."""
    length: Annotated[int, Field(ge=8)] | None = None
    """Passages are cut into prompts of at most so many tokens, one cluster each; null: never cut."""
    generate: Count = 0
    """Number of tokens that the model first writes greedily, which are then scored."""


@spec
class FilePrompts:
    """Rows of a file; the keys name its columns, with the meaning they have in `InlinePrompts`."""

    name: Literal["file"]
    """Which of the options this is."""
    path: PathText
    """File (.txt .jsonl .csv .tsv .parquet) or datasets folder."""
    column: str = "text"
    """Column of the texts."""
    pair: str | None = None
    """Column of second sentences."""
    target: str | None = None
    """Column of what an encoder-decoder writes."""
    answer: str | None = None
    """Column of answers: these tokens alone are scored."""
    distractor: str | None = None
    """Column of tokens that answers are compared with."""
    cluster: str | None = None
    """Column that names variants of each other; null: each row by itself."""
    counterfactual: str | None = None
    """Column of corrupted texts, for ablation=patch."""
    words: str | None = None
    """Column of tagged words: emotion: glad, angry; name: Alonzo."""
    relations: str | None = None
    """Column of syntactic relations: nsubj(barked, dog); det(dog, the#2)."""
    tags: Names = ()
    """Columns to copy to the results."""
    n: PositiveInt | None = None
    """Number of rows, drawn; null: all."""
    seed: Seed = 0
    """Seed of the draw."""
    chat: bool = False
    """Each text is a user's message, put into the tokenizer's chat template."""
    generate: Count = 0
    """Number of tokens that the model first writes greedily, which are then scored."""


@spec
class Part:
    """A named segment of a context: an instruction, a document."""

    name: Annotated[str, Field(min_length=1)]
    text: Annotated[Text, Field(min_length=1)]


@spec
class Context:
    """Segments, the question after them and its answer (default: the model's own). Contexts of one `cluster` are
    variants of each other."""

    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    question: Text
    answer: Text | None = None
    cluster: Text | None = None


@spec
class ContextPrompts:
    """Contexts of named segments and a question; the answer is scored, the model's own where none is written."""

    name: Literal["context"]
    """Which of the options this is."""
    path: PathText | None = None
    """JSON or YAML file of one context or a list."""
    contexts: tuple[Context, ...] = ()
    """Contexts: {parts: [{name: …, text: …}], question: …, answer: …}."""
    between: str = "\n\n"
    """Text between segments, and before the question."""
    generate: PositiveInt = 12
    """Largest number of tokens of an answer that the model writes itself, up to a line break."""


@spec
class Item:
    """A context, its completions, and the right one, by its number from 0 or its text. Items of one `cluster` are
    variants of each other."""

    context: Text
    choices: Annotated[Names, Field(min_length=2)]
    answer: int | str
    cluster: Text | None = None


@spec
class ChoicePrompts:
    """Items with a context and two or more completions: of a file, of the request, or of a task set made of templates.

    A completion may have any number of tokens; the metrics compare the log-probabilities of an item's completions.
    """

    name: Literal["choices"]
    """Which of the options this is."""
    task: str | None = None
    """Task set: agreement, reflexive, npi, capitals, facts, arithmetic, copy_name, needle; null: those of a file."""
    path: PathText | None = None
    """File (.jsonl .csv .tsv .parquet) with the columns context, choices (a list) and answer (its number or text)."""
    items: tuple[Item, ...] = ()
    """Items: {context: …, choices: [a, b], answer: 0}."""
    context: str = "context"
    """Column of the contexts."""
    choices: str = "choices"
    """Column of the lists of completions; in a table of text, a JSON list."""
    answer: str = "answer"
    """Column of the right completion: its number in the list, from 0, or its text."""
    cluster: str | None = None
    """Column that names variants of each other; null: each item by itself."""
    tags: Names = ()
    """Columns to copy to the results."""
    delimiter: str = " "
    """Text between a context and each completion."""
    n: PositiveInt | None = None
    """Number of items, drawn; null: all of a file, 100 of a task set."""
    seed: Seed = 0
    """Seed of the draw."""
    length: PositiveInt | None = None
    """Words of filler text in task=needle; null: 150."""

    def __post_init__(self) -> None:
        sources = [key for key in ("task", "path", "items") if getattr(self, key)]
        if len(sources) != 1:
            remedy = "set one of prompts.task=NAME, prompts.path=FILE and prompts.items=[{context: …}]"
            raise RequestError("prompts", " and ".join(sources) or "choices", remedy)


PromptSpec = Annotated[
    IoiPrompts
    | InductionPrompts
    | InlinePrompts
    | TokenIdPrompts
    | ProsePrompts
    | FilePrompts
    | ContextPrompts
    | ChoicePrompts,
    Field(discriminator="name"),
]

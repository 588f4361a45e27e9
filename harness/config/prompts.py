"""Specs of prompt sets."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from harness.config.types import Count, Names, PathText, PositiveInt, Seed, Text, spec

TokenIds = tuple[Annotated[int, Field(ge=0, strict=True)], ...]


@spec
class IoiPrompts:
    """Indirect-object identification: `n` prompts from templates with two names, the answer being the other one."""

    name: Literal["ioi"]
    n: PositiveInt = 32
    seed: Seed = 0
    names: Names | None = None


@spec
class InductionPrompts:
    """`length` random tokens, then the same again; the second half is scored."""

    name: Literal["induction"]
    n: PositiveInt = 8
    seed: Seed = 0
    length: Annotated[int, Field(ge=2)] = 24


@spec
class InlinePrompts:
    """Texts written in the request, each with its second sentence where `pair` is set.

    With an answer (and a distractor) the next token after the text is scored (for a masked-LM the place of its mask
    token, for a classifier the label), otherwise every predicted token. An encoder-decoder reads the text and writes
    `target`, all of which is scored. With `generate` the model writes that many tokens greedily, which are scored.

    `words` tags words, ``{emotion: [glad, angry]}``: each tag is a segment of the prompt, to which a prediction is
    traced. ``punctuation``, ``pronoun`` and ``function`` have built-in (English) words where the list is empty. Prompts
    of one `cluster` are variants of each other; `relations` are those of each text, as in `FilePrompts`. The
    `counterfactual` of a text is as long as it, in tokens; `tags` has values of each text to copy to the results.
    """

    name: Literal["inline"]
    text: Names
    pair: Names | None = None
    target: Names | None = None
    answer: Names | None = None
    distractor: Names | None = None
    cluster: Names | None = None
    relations: Names | None = None
    counterfactual: Names | None = None
    words: Mapping[str, Names] = Field(default_factory=dict)
    tags: Mapping[str, Names] = Field(default_factory=dict)
    generate: Count = 0


@spec
class TokenIdPrompts:
    """Prompts as token ids of the model's tokenizer, used as they are: no special token is added.

    The other keys have the meaning they have in `InlinePrompts`; a `counterfactual` is token ids too.
    """

    name: Literal["token_ids"]
    token_id: tuple[TokenIds, ...]
    target: Names | None = None
    answer: Names | None = None
    distractor: Names | None = None
    cluster: Names | None = None
    counterfactual: tuple[TokenIds, ...] | None = None
    generate: Count = 0


@spec
class ProsePrompts:
    """Passages of prose, every predicted token scored. A passage longer than `length` tokens becomes several prompts
    of one cluster; without a `length` it is never cut."""

    name: Literal["prose"]
    language: Literal["en", "ja"] = "en"
    n: PositiveInt = 8
    seed: Seed = 0
    length: Annotated[int, Field(ge=8)] | None = None
    generate: Count = 0


@spec
class FilePrompts:
    """Rows of a file; `column` and the keys after it name its columns, with the meaning they have in `InlinePrompts`.

    `tags` are columns copied to the results. `relations` names a column of syntactic relations, each written
    ``name(head, dependent)``, such as ``nsubj(barked, dog); det(dog, the#2)`` (the second "the"). The column `words`
    tags words of its row, as an object ``{"emotion": ["glad"]}`` or as text ``emotion: glad, angry; name: Alonzo``.
    `n` rows are drawn (default: all).
    """

    name: Literal["file"]
    path: PathText
    column: str = "text"
    pair: str | None = None
    target: str | None = None
    answer: str | None = None
    distractor: str | None = None
    cluster: str | None = None
    counterfactual: str | None = None
    words: str | None = None
    relations: str | None = None
    tags: Names = ()
    n: PositiveInt | None = None
    seed: Seed = 0
    generate: Count = 0


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
    """Contexts of named segments, from a JSON or YAML file (one, or a list of them) or written in the request.

    Segments and question are joined by `between`; the answer is scored. Without one the model writes it, up to a line
    break or `generate` tokens.
    """

    name: Literal["context"]
    path: PathText | None = None
    contexts: tuple[Context, ...] = ()
    between: str = "\n\n"
    generate: PositiveInt = 12


PromptSpec = Annotated[
    IoiPrompts | InductionPrompts | InlinePrompts | TokenIdPrompts | ProsePrompts | FilePrompts | ContextPrompts,
    Field(discriminator="name"),
]

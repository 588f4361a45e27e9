"""Write after prompts, clean and without sets of heads, all in the same forwards, and compare the texts."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Float, Int

from harness.ablation.ablation_context import Text, ablating, checked
from harness.ablation.edits import Check
from harness.ablation.from_spec import build, reference_prompts
from harness.ablation.head_ablation import HeadAblation
from harness.config import AblationSpec, MeanAblation, PatchAblation, RequestError, ResampleAblation
from harness.hooks import Head
from harness.models import Model
from harness.models.generation import Choose, check_room, check_writes, greedy, next_of_rows, sampler
from harness.prompts import Prompts

#: Rows that go through the model together.
_ROWS = 32


@dataclass(frozen=True)
class Continuations:
    """What was written after some prompts by the clean model and without each set of heads.

    `clean` and `ablated` hold the new tokens, -1 after the last. `parts_at` is the number of the first new token that
    differs (NaN: none does), and `probability` that of the clean and of the ablated text's token there (writer), by the
    clean and by the ablated model (reader).
    """

    clean: Int[np.ndarray, "prompt new"]
    ablated: Int[np.ndarray, "prompt set new"]
    parts_at: Float[np.ndarray, "prompt set"]
    probability: Float[np.ndarray, "prompt set writer reader"]


@dataclass(frozen=True)
class Writer:
    """Writes after prompts, by the clean model and with heads ablated.

    A mean is over `reference`. Text is greedy; with a `seed` it is sampled at `temperature`, from the same seed for
    every prompt and every model, so that texts part only where the models do. `key` is what errors call the number of
    new tokens; `check` counts the edits verified at W_O.
    """

    model: Model
    prompts: Prompts
    ablation: AblationSpec
    reference: Prompts | None
    max_new_tokens: int = 20
    seed: int | None = None
    temperature: float = 1.0
    key: str = "max_new_tokens"
    check: Check = field(default_factory=Check)

    def check_request(self, sets: Sequence[tuple[Head, ...]]) -> None:
        """Raise `RequestError` for a model that writes no text, prompts without room for the new tokens, and heads,
        ablation or positions that these prompts do not allow."""
        check_writes(self.model)
        longest = max(map(len, self.reads))
        check_room(self.model, longest, self.max_new_tokens, self.key)
        begins = longest if self.model.kind == "decoder" else 1
        positions, end = self.ablation.positions, begins + self.max_new_tokens - 1  # the last new token is not read
        if not isinstance(positions, str) and min(positions) >= end:
            remedy = f"no text gets there: the model reads at most {end} tokens, 0 to {end - 1}"
            raise RequestError("ablation.positions", list(positions), remedy)
        if isinstance(self.ablation, MeanAblation):
            reference_prompts(self.ablation.reference, self.model, self.reference)
        for heads in filter(None, sets):
            for number in range(len(self.prompts)) if self._by_prompt else [None]:
                checked(self.model, HeadAblation(heads, self.ablation), self._text(number))
        if isinstance(self.ablation, ResampleAblation | PatchAblation):
            build(self.ablation, self.model, self.prompts)

    @property
    def reads(self) -> list[list[int]]:
        """The tokens that are continued; of an encoder-decoder the sources."""
        return [row[row >= 0].tolist() for row in self.prompts.read]

    def batches(self, at_most: int) -> list[list[int]]:
        """Return the numbers of prompts that may be written after together: of one length, at most so many."""
        if self._by_prompt:
            return [[number] for number in range(len(self.prompts))]
        lengths = [len(read) for read in self.reads]
        alike = [[at for at, n in enumerate(lengths) if n == length] for length in sorted({*lengths})]
        return [same[start : start + at_most] for same in alike for start in range(0, len(same), at_most)]

    @property
    def _by_prompt(self) -> bool:
        """Whether the ablation depends on the prompt: on its length, or on its donor."""
        positions = self.ablation.positions
        from_end = positions in ("last", "target") if isinstance(positions, str) else min(positions) < 0
        return from_end or isinstance(self.ablation, ResampleAblation | PatchAblation)

    def _text(self, number: int | None) -> Text | None:
        return None if number is None else Text(self.prompts, number)

    def write(self, numbers: Sequence[int], sets: Sequence[tuple[Head, ...]]) -> Continuations:
        """Continue one batch of prompts (`batches`) without each of these sets; without an empty one by the clean
        model."""
        each = max(1, _ROWS // len(numbers) - 1)
        some = [self._write(numbers, sets[start : start + each]) for start in range(0, max(1, len(sets)), each)]
        joined = {
            name: np.concatenate([getattr(one, name) for one in some], axis=1)
            for name in ("ablated", "parts_at", "probability")
        }
        return Continuations(some[0].clean, **joined)

    def _write(self, numbers: Sequence[int], sets: Sequence[tuple[Head, ...]]) -> Continuations:
        """Continue in forwards that have the clean rows first, then those of each set."""
        n, n_sets = len(numbers), len(sets)
        values = [HeadAblation(heads, self.ablation) for heads in sets if heads]
        rows = [slice(n * at, n * (at + 1)) for at, heads in enumerate(sets, 1) if heads]
        text = self._text(numbers[0]) if self._by_prompt else None
        context = ablating(self.model, values, self.reference, text, rows) if values else nullcontext(Check())
        reads = [self.reads[number] for number in numbers] * (1 + n_sets)
        new = np.full((1 + n_sets, n, self.max_new_tokens), -1)
        parts_at = np.full((n_sets, n), np.nan)
        probability = np.full((n_sets, n, 2, 2), np.nan)
        ended, end = np.zeros((1 + n_sets, n), dtype=bool), self.model.tokenizer.eos_token_id
        with context as check, self.model.alone():
            steps = next_of_rows(self.model, reads, [self._choice() for _ in reads])
            for step, (chosen, logits) in enumerate(islice(steps, self.max_new_tokens)):
                tokens = np.array(chosen).reshape(1 + n_sets, n)
                new[..., step] = np.where(ended, -1, tokens)
                for at, number in np.argwhere(np.isnan(parts_at) & (new[1:, :, step] != new[0, :, step])):
                    parts_at[at, number] = step
                    both = logits[[number, (1 + at) * n + number]].float().softmax(-1)
                    probability[at, number] = both[:, tokens[[0, 1 + at], number]].T.cpu().numpy()
                ended |= tokens == end
                if ended.all():
                    break
        self.check.fired += check.fired
        by_prompt = (array.swapaxes(0, 1) for array in (new[1:], parts_at, probability))
        return Continuations(new[0], *by_prompt)

    def _choice(self) -> Choose:
        return greedy if self.seed is None else sampler(self.seed, self.temperature, self.model.device)

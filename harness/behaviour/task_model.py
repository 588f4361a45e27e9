"""A hooked model as lm-evaluation-harness's own interface: log-probabilities of answers, and text that is written.

What is ablated in the model (`harness.ablated`) is ablated in every answer. Texts are encoded under the model's policy
for the BOS token, not lm-evaluation-harness's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch.nn.utils.rnn import pad_sequence

from harness.ablation.rows import CHUNK_TOKENS
from harness.config import RequestError
from harness.models import Inputs, Model
from harness.models.generation import written

#: An encoded context and its continuation.
Pair = tuple[Sequence[int], Sequence[int]]
#: New tokens of a task that sets no number of its own.
_NEW_TOKENS = 256


class TaskModel(TemplateLM):
    """A decoder or encoder-decoder that takes the requests of lm-evaluation-harness's tasks."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.backend = "causal" if model.kind == "decoder" else "seq2seq"

    @property
    def eot_token_id(self) -> int:
        return self.model.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context: BOS, or EOS for a model that uses one for both."""
        first = self.model.tokens.bos_id
        return self.eot_token_id if first is None else first

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Encode a text under the model's token policy, or without special tokens."""
        if add_special_tokens is False:
            return self.model.tokens.bare(string)
        return list(self.model.tokens.encode(string).token_id)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]], disable_tqdm: bool = True, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation (nats), and whether greedy decoding would write it."""
        pairs: list[Pair] = [(context or [self.prefix_token_id], more) for _, context, more in requests]
        scores: dict[int, tuple[float, bool]] = {}
        for numbers in _batches([len(context) + len(more) for context, more in pairs]):
            scores |= zip(numbers, self._scored([pairs[number] for number in numbers]), strict=True)
        return [scores[number] for number in range(len(pairs))]

    @torch.no_grad()
    def _scored(self, pairs: Sequence[Pair]) -> Iterator[tuple[float, bool]]:
        """Score continuations in one forward, padded on the right."""
        limit = self.model.shape.n_ctx
        if longest := max((len(more) for _, more in pairs if len(more) > limit), default=0):
            remedy = (
                f"an answer of {longest} tokens is longer than {self.model.name} takes ({limit}); leave the task out"
            )
            raise RequestError("tasks", "…", remedy)
        if self.model.kind == "decoder":
            # A context that is too long loses its beginning, as in lm-evaluation-harness.
            rows = [[*context, *more][-(limit + 1) :][:-1] for context, more in pairs]
            inputs = Inputs(*self._padded(rows))
        else:
            assert self.model.start_id is not None
            rows = [[self.model.start_id, *more][:-1] for _, more in pairs]
            inputs = Inputs(*self._padded(rows), None, *self._padded([context[-limit:] for context, _ in pairs]))
        logits = self.model.forward(inputs)
        for row, (_, more) in enumerate(pairs):
            end, own = len(rows[row]), torch.tensor([*more], device=logits.device)
            log_prob = logits[row, end - len(own) : end].float().log_softmax(-1)
            greedy = bool((log_prob.argmax(-1) == own).all())
            yield float(log_prob.gather(1, own[:, None]).sum()), greedy

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and mask, both [row, position]."""
        tensors = [torch.tensor([*row], device=self.model.device) for row in rows]
        ids, masks = (
            pad_sequence(each, batch_first=True) for each in (tensors, [torch.ones_like(row) for row in tensors])
        )
        return ids, masks

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = True) -> list[float]:
        """Return the log-probability of each whole text, in windows of the model's context."""
        totals = []
        for (text,) in (request.args for request in requests):
            ids, first = self.model.tokens.bare(text), self.prefix_token_id
            windows = get_rolling_token_windows(ids, first, max_seq_len=self.model.shape.n_ctx, context_len=1)
            pairs = [make_disjoint_window(window) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens([(None, *pair) for pair in pairs])))
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> list[str]:
        """Return what the model writes greedily after each context, up to one of the request's stops."""
        return [self._until(*request.args) for request in requests]

    def _until(self, context: str, how: dict[str, Any]) -> str:
        if how.get("do_sample"):
            remedy = "text is greedy here, so that two models differ in nothing else; set it to false in the task"
            raise RequestError("tasks", "do_sample=true", remedy)
        stops = [how["until"]] if isinstance(how.get("until"), str) else [*(how.get("until") or ())]
        n_new = int(how.get("max_gen_toks") or _NEW_TOKENS)
        room = self.model.shape.n_ctx - (n_new if self.model.kind == "decoder" else 0)
        if room < 1:
            raise RequestError("tasks", f"max_gen_toks={n_new}", f"{self.model.name} takes {self.model.shape.n_ctx}")
        new: list[int] = []
        text = ""
        for token, _ in written(self.model, self.tok_encode(context)[-room:], n_new):
            new.append(token)
            text = self.model.tokenizer.decode(new, skip_special_tokens=True)
            if any(stop in text for stop in stops if stop):
                break
        return text[: min((text.index(stop) for stop in stops if stop and stop in text), default=len(text))]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the numbers of texts that share a forward: of similar length, and not too many tokens."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda at: lengths[at]):
        if batch and (len(batch) + 1) * lengths[number] > CHUNK_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch

"""TransformerLens's bridge with the model's token policy and a lock: one thread at a time hooks it or runs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock, get_ident
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from harness.config import Bos
from harness.models.tokens import Tokens


class Lock:
    """A reentrant lock that can be copied and pickled: a copy is a new, free lock."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._holder, self._depth = 0, 0

    @property
    def held(self) -> bool:
        """Whether this thread holds the lock."""
        return self._holder == get_ident()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._holder, self._depth = get_ident(), self._depth + 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._holder = self._holder if self._depth else 0
        self._lock.release()

    def __reduce__(self) -> tuple[type["Lock"], tuple[()]]:
        return Lock, ()


class Bridge(TransformerBridge):
    """A TransformerLens bridge with the token policy and the lock of its model; arguments are TransformerLens's.

    Without the policy a text would always get a BOS token; without the lock the hooks of one thread would fire in the
    forwards of another.
    """

    lock: Lock
    tokens: Tokens
    #: The checks of the interventions in force, outermost first (`harness.ablation.edits`).
    in_force: list[Any]

    @classmethod
    def adopt(cls, bridge: TransformerBridge, tokens: Tokens) -> "Bridge":
        """Change the class of a bridge in place, and return it."""
        # Past the bridge's own __setattr__, which looks for attributes in the model that it wraps.
        vars(bridge).update(lock=Lock(), tokens=tokens, in_force=[])
        bridge.__class__ = cls
        bridge.cfg.default_prepend_bos = tokens.begins_with_bos
        assert isinstance(bridge, cls)
        return bridge

    def to_tokens(
        self,
        input: str | list[str],
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> torch.Tensor:
        """Return token ids [text, position] by the model's policy, or with one BOS token or none (`prepend_bos`)."""
        bos: Bos = self.tokens.bos if prepend_bos is None else "always" if prepend_bos else "never"
        texts = [input] if isinstance(input, str) else list(input)
        with self.lock:
            rows = [Tokens(self.tokens.tokenizer, bos).encode(text).token_id for text in texts]
        rows = [row[: self.cfg.n_ctx] if truncate else row for row in rows]
        size, side = max(map(len, rows)), padding_side or self.tokenizer.padding_side
        fill = [(self.tokenizer.pad_token_id or 0,) * (size - len(row)) for row in rows]
        padded = [(*gap, *row) if side == "left" else (*row, *gap) for row, gap in zip(rows, fill, strict=True)]
        ids = torch.tensor(padded, dtype=torch.long)
        return ids.to(self.cfg.device) if move_to_device else ids

    @property
    def interventions(self) -> tuple[Any, ...]:
        """The checks in force in this thread: those of another thread are not in force in what this one will run."""
        return tuple(self.in_force) if self.lock.held else ()

    @contextmanager
    def hooks(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with self.lock, super().hooks(*args, **kwargs) as hooked:
            yield hooked

    @wraps(TransformerBridge.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self.lock:
            return super().forward(*args, **kwargs)

    @wraps(TransformerBridge.run_with_hooks)
    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self.lock:
            return super().run_with_hooks(*args, **kwargs)

    @wraps(TransformerBridge.run_with_cache)
    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self.lock:
            return super().run_with_cache(*args, **kwargs)

    @wraps(TransformerBridge.generate)
    def generate(self, input: Any = "", *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        # TransformerLens would encode the source of an encoder-decoder with the tokenizer, against the policy.
        if isinstance(input, str) and hasattr(self, "encoder_blocks"):
            wanted = kwargs.get("return_type", "input")
            kwargs["return_type"] = "str" if wanted == "input" else wanted
            input = self.to_tokens(input, kwargs.pop("prepend_bos", None), truncate=False)
        with self.lock:
            return super().generate(input, *args, **kwargs)

    @wraps(TransformerBridge.generate_stream)
    def generate_stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with self.lock:
            yield from super().generate_stream(*args, **kwargs)

    @wraps(TransformerBridge.hf_generate)
    def hf_generate(self, input: Any = "", *args: Any, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(input, torch.Tensor):
            with self.lock:
                return super().hf_generate(input, *args, **kwargs)
        # TransformerLens would encode texts with the tokenizer, against the policy.
        rows = [self.to_tokens(text, truncate=False)[0] for text in ([input] if isinstance(input, str) else input)]
        masks = [torch.ones_like(row) for row in rows]
        pad, wanted = self.tokenizer.pad_token_id or 0, kwargs.pop("return_type", "input")
        kwargs["attention_mask"] = pad_sequence(masks, batch_first=True, padding_side="left")
        ids = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
        with self.lock:
            out = super().hf_generate(ids, *args, return_type="tokens", **kwargs)
        if wanted == "tokens":
            return out
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in getattr(out, "sequences", out)]
        return texts[0] if isinstance(input, str) else texts

"""Greedy generation against plain Hugging Face, from a key–value cache and without one."""

from itertools import islice

import plain
import pytest
import torch

from harness import hooks
from harness.config import RequestError
from harness.models.generation import next_logits

TEXT = "When Mary and John went to the store"
STEPS = 6


def test_generate_writes_what_hugging_face_writes(tiny):
    for shape in ("gpt2", "llama", "t5"):
        model = tiny(shape)
        ids = torch.tensor([model.tokens.encode(TEXT).token_id])
        mask = torch.ones_like(ids)
        new = plain.twin(shape).generate(ids, max_new_tokens=STEPS, do_sample=False, attention_mask=mask)
        tokens = new[0, 1:] if shape == "t5" else new[0, ids.shape[1] :]
        text = model.generate(TEXT, max_new_tokens=STEPS)
        assert text == ("" if shape == "t5" else TEXT) + model.tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("shape", "text", "n", "says"),
    [
        ("bert", TEXT, 3, r"^model=random: it does not continue a text: load a decoder or an encoder-decoder$"),
        ("gpt2", TEXT, 0, r"^max_new_tokens=0: write at least one token$"),
        ("gpt2", TEXT, 900, r"^max_new_tokens=900: this makes 9\d\d tokens, random takes \d+$"),
    ],
)
def test_generate_refuses_in_one_line(tiny, shape, text, n, says):
    with pytest.raises(RequestError, match=says):
        tiny(shape).generate(text, max_new_tokens=n)


def test_generate_needs_a_token_to_begin_with(tiny):
    with pytest.raises(RequestError, match=r"^text='': give a text with at least one token$"):
        tiny("llama", bos="never").generate("")


@pytest.mark.parametrize("shape", ["gpt2", "llama", "gemma3", "t5"])
def test_generate_from_a_cache_equals_whole_forwards(tiny, shape):
    model = tiny(shape)
    ids = model.tokens.encode(TEXT).token_id
    cached, whole = (torch.stack([*islice(next_logits(model, ids, how), STEPS)]) for how in (True, False))
    torch.testing.assert_close(cached, whole, atol=1e-5, rtol=0)
    assert cached.argmax(-1).tolist() == whole.argmax(-1).tolist()


@pytest.mark.parametrize(("shape", "widths"), [("llama", [12, 1, 1]), ("t5", [1, 1, 1])])
def test_generate_runs_each_position_once(tiny, shape, widths):
    model, seen = tiny(shape), []
    (block, *_), last = (hooks.blocks(model.bridge), hooks.blocks(model.bridge)[-1])
    keep = last.register_forward_hook(lambda _, args, out: seen.append(hooks.first_of(out).shape[1]))
    first = block.register_forward_hook(lambda *_: seen.append("encoder" if shape == "t5" else "first"))
    [*islice(next_logits(model, model.tokens.encode(TEXT).token_id), 3)]
    keep.remove()
    first.remove()
    assert [each for each in seen if isinstance(each, int)] == widths
    assert seen.count("encoder") == (shape == "t5")

"""`harness.look`: every view of one sentence in one call, its numbers those of plain Hugging Face patterns."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from thinned import most
from transformers import AutoModel

import harness
from harness.attribution import rollout
from harness.config import RequestError
from harness.models import random as random_models
from harness.models import sources
from harness.views.axis import axis

TEXT = "The dog chased the cat"


@pytest.fixture(scope="module")
def minilm():
    return harness.load_model("minilm")


@pytest.fixture(scope="module")
def seen(minilm):
    return harness.look(minilm, TEXT)


@pytest.fixture(scope="module")
def plain(minilm, seen):
    """The patterns [layer, head, query, key] of the Hugging Face model alone."""
    twin = AutoModel.from_pretrained(sources.local_folder(minilm.spec), attn_implementation="eager").eval()
    token_id = torch.as_tensor(seen.run.data["token_id"].values)
    with torch.no_grad():
        return torch.stack(twin(token_id, output_attentions=True).attentions)[:, 0].double().numpy()


def test_look_table_is_the_plain_models_pattern(seen, plain):
    for head in seen.run.all_heads:
        np.testing.assert_allclose(seen.table(head=str(head)).values, plain[head.layer, head.head], atol=1e-5)
    np.testing.assert_allclose(seen.table().values, plain.mean(axis=(0, 1)), atol=1e-5)
    assert list(seen.table("L0H0").columns) == ["[CLS]", "the (1)", "dog", "chased", "the (4)", "cat", "[SEP]"]


def test_look_follow_and_strongest_read_the_same_weights(seen, plain):
    followed = seen.follow_table("chased", ["dog", "cat"])
    by_key = followed.pivot(index="key", columns="head", values="weight")
    for key, at in (("dog", 2), ("cat", 5)):
        for head in seen.run.all_heads:
            assert by_key.loc[key, str(head)] == pytest.approx(plain[head.layer, head.head, 3, at], abs=1e-5)
    row = plain[3, 7, 3]
    strongest = seen.strongest("chased", "L3H7", n=2)
    assert strongest["key_at"].tolist() == np.argsort(-row)[:2].tolist()
    np.testing.assert_allclose(strongest["weight"], np.sort(row)[::-1][:2], atol=1e-5)


def test_look_rollout_takes_its_options(seen, plain, monkeypatch):
    drawn = []
    monkeypatch.setattr("harness.views.look.heatmap", lambda weights: drawn.append(weights.values) or figure())
    seen.rollout(start_layer=2, discard_ratio=0.1)
    np.testing.assert_allclose(drawn[0], rollout(plain, start_layer=2, discard_ratio=0.1), atol=1e-5)
    assert not np.allclose(drawn[0], rollout(plain), atol=1e-3)


def figure():
    from harness.views.figures.base import panels

    return panels(1, 1, 2, 2)[0]


def test_look_saliency_is_the_norm_of_the_gradient_with_subwords_joined(minilm):
    seen = harness.look(minilm, "The unhappiness grew")
    explained = harness.compare_attributions(
        minilm, harness.load_prompts("inline", minilm, text=["The unhappiness grew"]), ["gradient"], ["knockout"]
    ).data
    norm = np.nan_to_num(explained["attribution"].values[0, 0]).mean(axis=0)
    np.testing.assert_allclose(seen.gradient(), norm[: len(seen.gradient())], atol=1e-6)
    page = seen.saliency().html
    assert "unhappiness" in page


@pytest.mark.parametrize(
    ("options", "merged"),
    [
        *[({}, "sum"), ({"merge": "max"}, "max"), ({"scale": "shared"}, "sum"), ({"prompts": 0}, "sum")],
        *[({"method": "gradient"}, "sum"), ({"special": "keep", "merge": "mean"}, "mean"), ({"name": "mine"}, "sum")],
    ],
)
def test_look_saliency_is_the_gradient_whatever_its_options(minilm, options, merged):
    """An option says how the gradient is shown; only a head, or scores of the caller's own, take its place."""
    seen = harness.look(minilm, "The unhappiness grew")
    place = axis(seen.run, 0, "word", options.get("special", "drop"))
    view = seen.saliency(**options)
    scores = place.scores(seen.gradient(), merged)
    shares = (scores - scores.min()) / (scores.max() - scores.min())
    words = view.html.partition('class="by-word"')[2].partition('class="by-token"')[0]
    shown = re.findall(r'class="mark" style="--share:([\d.]+)"', words)
    np.testing.assert_allclose([float(share) for share in shown], shares, atol=6e-4)
    name = options.get("name", "the norm of the gradient of the text’s vector")
    assert view.title == f"Text coloured by {name}"


@pytest.mark.parametrize("own", [{"head": "L0H1"}, {"scores": np.arange(5.0)}])
def test_look_saliency_of_a_head_or_of_scores_is_no_gradient(minilm, own):
    seen = harness.look(minilm, "The dog barked")
    title = "attention weights" if "head" in own else "custom scores"
    assert seen.saliency(**own).title == f"Text coloured by {title}"


def test_look_saliency_of_one_prediction_is_its_gradient(tiny):
    """Each prediction's gradient, by a plain backward pass through the Hugging Face model; the mean of them in all."""
    model = tiny("gpt2")
    seen = harness.look(model, "a drink to Mary")
    plain, _, _ = random_models.build("gpt2", 0)
    plain.eval()
    ids = torch.as_tensor(seen.run.data["token_id"].values)
    embeddings = plain.get_input_embeddings()(ids).detach().requires_grad_(True)
    losses = torch.nn.functional.cross_entropy(
        plain(inputs_embeds=embeddings).logits[0, :-1], ids[0, 1:], reduction="none"
    )
    slopes = [torch.autograd.grad(loss, embeddings, retain_graph=True)[0][0].norm(dim=-1).numpy() for loss in losses]
    np.testing.assert_allclose(seen.gradient(2), slopes[2], atol=1e-5)
    np.testing.assert_allclose(seen.gradient(), np.mean(slopes, axis=0), atol=1e-5)
    assert seen.gradient()[-1] == 0
    view = seen.saliency(query=2)
    assert view.title.startswith("Text coloured by the norm of the gradient of the loss, prediction at “")
    assert view.title.endswith("(token 2)")
    with pytest.raises(RequestError, match=r"^query=-?\d+: predictions are made at tokens 0, 1, 2"):
        seen.saliency(query=len(slopes))
    assert "nothing follows the last token, whose score is 0" in seen.saliency().html


EXPLAINED = {
    "gpt2": "the norm of the gradient of the loss, mean over 3 predictions",
    "bert": "the norm of the gradient of the loss, mean over 4 predictions",
    "t5": "the norm of the gradient of the loss, mean over 3 predictions",
}


@pytest.mark.parametrize("family", EXPLAINED)
def test_look_saliency_says_of_what_its_gradient_is(tiny, family, tmp_path):
    target = {"target": "e f"} if family == "t5" else {}
    seen = harness.look(tiny(family), "a b c d", **target)
    n = len(seen.gradient.predicts_at)
    name = re.sub(r"\d+", str(n), EXPLAINED[family])
    assert seen.saliency().title == f"Text coloured by {name}"
    figure = seen.saliency().figure()
    assert figure.texts[0].get_text().replace("\n", " ") == f"Text coloured by {name} · random"
    below = figure.axes[0].texts[-1].get_text()
    assert below.startswith("The loss is minus the log-probability of ")
    assert "the sum over its tokens" in below


VIEWS = ("head", "mean", "grid", "layer", "lines", "rollout", "saliency", "follow")
#: Each view as a page and as one kind of figure; as the other kinds in the soak.
SAVED = [(view, "html") for view in VIEWS] + list(zip(VIEWS, ["svg", "png", "pdf"] * 3, strict=False))
SAVED += [each for each in product(VIEWS, ["svg", "png", "pdf"]) if each not in SAVED]


@pytest.mark.parametrize(("view", "suffix"), most(SAVED, 2 * len(VIEWS)))
def test_look_views_show_themselves_and_save_by_suffix(seen, tmp_path, view, suffix):
    made = {
        "head": lambda: seen.head("L0H0"),
        "mean": lambda: seen.head("mean"),
        "grid": seen.all_heads,
        "layer": lambda: seen.grid(layer=0),
        "lines": seen.lines,
        "rollout": seen.rollout,
        "saliency": seen.saliency,
        "follow": lambda: seen.follow("chased", ["dog", "cat"]),
    }[view]()
    begins = {"html": b"<!doctype html", "svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
    path = made.save(tmp_path / f"{view}.{suffix}")
    assert path.read_bytes()[:14].lower().startswith(begins[suffix].lower())
    assert "<iframe" in made._repr_html_()


def test_look_figure_has_the_pattern_and_its_tokens(seen, plain):
    (axes,) = seen.head("L0H0").figure().axes
    np.testing.assert_allclose(axes.images[0].get_array(), plain[0, 0], atol=1e-5)
    assert [label.get_text() for label in axes.get_yticklabels()][2:4] == ["dog", "chased"]
    lines = seen.lines(head="L0H0").figure().axes[0].lines
    assert len(lines) == int((plain[0, 0] >= 0.01).sum())


SAVED_TITLES = {
    "L0H0": lambda seen: seen.head("L0H0"),
    "Every head of layer 5": lambda seen: seen.grid("L5"),
    "Every head": lambda seen: seen.all_heads(),
    "Mean of 12 heads (L5)": lambda seen: seen.lines(layer=5),
    "L5H3": lambda seen: seen.lines(5, 3),
    "Attention rollout start_layer=2 discard_ratio=0.1": lambda seen: seen.rollout(start_layer=2, discard_ratio=0.1),
    "L3H7: scores before the softmax": lambda seen: seen.scores("L3H7"),
    "L3H7: dog → cat": lambda seen: seen.qk("dog", "cat", "L3H7"),
    "From “chased” to “dog” and “cat”, in every head": lambda seen: seen.follow("chased", ["dog", "cat"]),
}


@pytest.mark.parametrize("title", SAVED_TITLES)
def test_look_figures_have_a_whole_title_with_the_text_and_the_model(seen, title):
    figure = SAVED_TITLES[title](seen).figure()
    written = max(figure.texts, key=lambda text: text.get_position()[1])
    assert " ".join(written.get_text().split()) == f"{title} · {TEXT} · minilm"
    figure.draw_without_rendering()
    box, page = written.get_window_extent(), figure.bbox
    assert box.x0 > 0 < box.y0
    assert box.x1 < page.width
    assert box.y1 < page.height
    drawn = [axes.get_tightbbox() for axes in figure.axes if axes.get_tightbbox()]
    assert box.y0 > max(each.y1 for each in drawn) - 1  # nothing is drawn over
    names = {axes.get_title(loc="left") for axes in figure.axes} - {"“chased” → “dog”", "“chased” → “cat”"}
    assert names == {""}


def test_look_figure_of_the_grid_has_its_tokens_in_one_line(seen):
    note = seen.grid(layer=5).figure().texts[1]
    assert note.get_text() == "Tokens: [CLS] | the | dog | chased | the | cat | [SEP]"


def test_look_rollout_is_labelled_as_such(seen):
    for view, label in ((seen.rollout(), "rollout"), (seen.head("rollout"), "rollout"), (seen.head(), "weight")):
        (matrix,) = view.figure().axes[0].images
        assert matrix.colorbar.ax.get_ylabel().split()[-1] == label
        np.testing.assert_allclose([matrix.norm(0), matrix.norm(0.25), matrix.norm(1)], [0, 0.5, 1])  # by the root


def test_look_lines_name_the_head_that_the_page_opens_with(seen):
    assert seen.lines(layer=5).title == f"Lines of L5 (first L5H0) · {TEXT}"
    assert seen.lines("L5", 3).title == seen.lines(head="L5H3").title == f"Lines of L5 (first L5H3) · {TEXT}"
    assert '"head":[5,3,""]' in seen.lines(5, 3).html.replace(" ", "")
    assert seen.lines().title == f"Lines of every layer (first L0H0) · {TEXT}"


def test_look_takes_a_head_as_two_numbers_and_a_layer_by_its_name(seen):
    assert seen.head(5, 1).title == seen.head("L5H1").title
    assert seen.grid("L5").title == seen.grid(5).title == f"Every head of layer 5 · {TEXT}"


def test_look_saves_what_it_shows(seen, tmp_path):
    page = seen.save(tmp_path / "look.html").read_text(encoding="utf-8")
    assert page == seen.grid().html
    assert seen.save(tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")


def test_look_at_a_pair_on_a_decoder_is_refused_in_the_callers_names(tiny):
    with pytest.raises(RequestError) as refused:
        harness.look(tiny("gpt2"), TEXT, "It ran away")
    assert str(refused.value) == "pair='It ran away': random is a decoder and reads one text: write both in text"


def test_look_scores_are_what_the_softmax_of_the_plain_model_reads(seen, plain):
    drawn = seen.scores("L3H7").figure().axes[0].images[0].get_array()
    powers = np.exp(drawn - drawn.max(axis=1, keepdims=True))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), plain[3, 7], atol=1e-5)


def test_look_values_are_weights_times_the_plain_values_norms(minilm, seen, plain):
    twin = AutoModel.from_pretrained(sources.local_folder(minilm.spec), attn_implementation="eager").eval()
    with torch.no_grad():
        inside = twin(torch.as_tensor(seen.run.data["token_id"].values), output_hidden_states=True).hidden_states[3]
        value = twin.encoder.layer[3].attention.self.value(inside)[0].unflatten(-1, (12, -1))[:, 7]
    drawn = seen.values("L3H7").figure().axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, plain[3, 7] * value.norm(dim=-1).numpy()[None], atol=1e-5)


def test_look_products_of_query_and_key_add_up_to_the_score(tiny):
    seen = harness.look(tiny("gpt2"), "a drink to Mary")
    table = seen.qk_table(3, 1, "L1H2")
    assert table["product"].sum() / np.sqrt(len(table)) == pytest.approx(table.attrs["score"], abs=1e-5)
    assert table.attrs["note"] == ""
    bars = [patch.get_height() for patch in seen.qk(3, 1, "L1H2").figure().axes[2].patches]
    np.testing.assert_allclose(bars, table["product"])


def test_look_products_before_a_rotary_embedding_say_so(tiny):
    seen = harness.look(tiny("llama"), "a drink to Mary")
    page = seen.qk(3, 1, "L1H2").html
    assert "q and k are as projected, and a rotary embedding" in page


def test_look_at_masked_scores_is_grey_and_by_shared_values(tiny):
    seen = harness.look(tiny("llama"), "a drink to Mary")
    data = seen.run.data
    score = np.ma.masked_invalid(seen.scores("L1H2").figure().axes[0].images[0].get_array())
    n = int(data["length"][0])
    np.testing.assert_array_equal(score.mask, np.triu(np.ones((n, n), bool), 1))
    shared = data.sizes["head"] // data.sizes["kv_head"]
    value = np.linalg.norm(data["v"].values[0, 1, 2 // shared, :n], axis=-1)
    want = data["pattern"].values[0, 1, 2, :n, :n] * value
    np.testing.assert_allclose(seen.values("L1H2").figure().axes[0].images[0].get_array(), want, rtol=1e-5)


@pytest.mark.parametrize("view", ["values", "scores", "qk"])
def test_look_names_what_a_run_did_not_keep(tiny, view):
    model = tiny("llama")
    patterns = harness.cache_attention(model, harness.load_prompts("inline", model, text=["a drink to Mary"])).data
    seen = harness.look(patterns)
    call = {"values": lambda: seen.values("L1H2"), "scores": lambda: seen.scores("L1H2")}
    call["qk"] = lambda: seen.qk(1, 0, "L1H2")
    kind = {"values": "v", "scores": "scores", "qk": "q"}[view]
    line = f"^head=L1H2: this run kept no {kind}: cache it with cache.also=\\[{kind}\\], or look at a text"
    with pytest.raises(RequestError, match=line):
        call[view]()


def test_look_at_a_pair_and_at_japanese_by_word(minilm):
    pair = harness.look(minilm, TEXT, "It ran away")
    assert pair.table("L0H0").shape == (11, 11)
    assert "It ran away" in repr(pair) or "it ran away" in repr(pair)
    words = harness.look(minilm, "犬が猫を追う")
    assert words.level == "word"
    np.testing.assert_allclose(words.table("L0H0").values.sum(axis=1), 1, atol=1e-5)


def test_look_at_an_encoder_decoder(tiny):
    seen = harness.look(tiny("t5"), "a b c d", target="e f")
    assert seen.table("cross.L0H0").shape[1] > seen.table("cross.L0H0").shape[0]
    assert {head.stack for head in seen.run.all_heads} == {"encoder", "decoder", "cross"}


def test_look_at_what_is_cached_needs_no_model(tiny, tmp_path):
    prompts = harness.load_prompts("ioi", tiny(), n=3)
    acts = harness.cache_attention(tiny(), prompts).data
    seen = harness.look(acts, prompt=2)
    end = int(prompts.length[2])
    np.testing.assert_allclose(seen.table("L1H0").values, acts.pattern.values[2, 1, 0, :end, :end], atol=1e-6)
    with pytest.raises(RequestError, match="prompt=3: the run has prompts 0-2"):
        harness.look(acts, prompt=3)


TOKENS = "[CLS], the, dog, chased, cat, [SEP]"
WRITTEN = "a head is written L5H1 (layer 5, head 1), its whole layer L5, all heads are all, by itself; "
WRITTEN += "layers 5 to 9 are L5-L9"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda model: harness.look(model, ""), "text='': give a text with at least one word"),
        (lambda model: harness.look(model, " \n"), "text=' \\n': give a text with at least one word"),
        (
            lambda model: harness.look(model, [TEXT]),
            f"text=['{TEXT}']: pass one text: look(model, \"The dog chased the cat\")",
        ),
        (
            lambda model: harness.look(model),
            'text=none: pass the text to look at: look(model, "The dog chased the cat")',
        ),
        (
            lambda model: harness.look("nowhere/at/all"),
            'look=nowhere/at/all: there is no such run; to look at a text pass it too: look(model, "The dog …")',
        ),
        (
            lambda model: harness.look(model, "word " * 600),
            "text='word word word word …': this prompt has 602 tokens, minilm takes 512",
        ),
        (
            lambda model: harness.look(model, TEXT, ""),
            "pair='': a second text must not be empty: write one, or leave out pair",
        ),
        (
            lambda model: harness.look(model, TEXT, target="Ja"),
            "target='Ja': minilm is an encoder and writes no target",
        ),
        (lambda model: harness.look(model, TEXT, level="char"), "level=char: choose token or word"),
        *(
            (
                lambda model, key=key: harness.look(harness.look(model, TEXT).run, **{key: "Ja"}),
                f"{key}='Ja': it belongs to a text: pass both, look(model, text, …)",
            )
            for key in ("pair", "target")
        ),
        (
            lambda model: harness.look(harness.look(model, TEXT).run.data.drop_vars("pattern")),
            "run=in memory: this run kept no patterns: make one with experiments.cache_attention",
        ),
        (
            lambda model: harness.look(harness.look(model, TEXT).run, prompt=1),
            "prompt=1: the run has prompts 0-0",
        ),
    ],
)
def test_look_refuses_in_one_line(minilm, call, says):
    with pytest.raises(RequestError) as refused:
        call(minilm)
    assert str(refused.value) == says


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda seen: seen.head("L99H0"), "heads=L99H0: L99H0 is outside minilm: it has layers 0-5"),
        (lambda seen: seen.table((0, 99)), "heads=L0H99: L0H99 is outside minilm: it has heads 0-11 in each layer"),
        (lambda seen: seen.table("L4-L2"), "heads=L4-L2: this range is reversed: write its lower end first"),
        (
            lambda seen: seen.lines(head="L0H99"),
            "heads=L0H99: L0H99 is outside minilm: it has heads 0-11 in each layer",
        ),
        (lambda seen: seen.lines(layer=9), "heads=L9H0: L9H0 is outside minilm: it has layers 0-5"),
        (lambda seen: seen.saliency(head="L9H9"), "heads=L9H9: L9H9 is outside minilm: it has layers 0-5"),
        (lambda seen: seen.head("H5"), f"head=H5: {WRITTEN}; or pass mean or rollout"),
        (lambda seen: seen.grid(layer=99), "layer=99: the layers are 0-5"),
        (lambda seen: seen.rollout(start_layer=6), "attribution.rollout.start_layer=6: the model has layers 0-5"),
        (lambda seen: seen.strongest("bird"), f"token='bird': it is not a token of this prompt; there are: {TOKENS}"),
        (lambda seen: seen.strongest("the"), "token='the': it is at 1 and 4 (counted from 0): pass the number"),
        (lambda seen: seen.follow("cat", "the"), "keys='the': it is at 1 and 4 (counted from 0): pass the number"),
        (lambda seen: seen.follow("The", "cat"), "query='The': it is at 1 and 4 (counted from 0): pass the number"),
        (
            lambda seen: seen.head(5),
            'head=5: write "L5" for the layer\'s mean, or "L5H1" for one head, which is head(5, 1) too',
        ),
        (lambda seen: seen.head("L5", 1), 'head=L5, 1: write "L5H1", or layer and head as numbers: head(5, 1)'),
        (lambda seen: seen.head(5, 99), "heads=L5H99: L5H99 is outside minilm: it has heads 0-11 in each layer"),
        (lambda seen: seen.grid("H5"), 'layer=H5: write a number, or its name: layer=5 or layer="L5"'),
        (lambda seen: seen.grid("L9"), "layer=9: the layers are 0-5"),
        (lambda seen: seen.lines(5, "L3H1"), "head=L3H1: it is not in layer 5: leave out one of the two"),
        (
            lambda seen: seen.rollout(discard=0.5),
            "rollout.discard=0.5: there is no such option; did you mean 'discard_ratio'? "
            "known: residual, head_fusion, start_layer, discard_ratio",
        ),
        (
            lambda seen: seen.saliency(merg="max"),
            "saliency.merg=max: there is no such option; did you mean 'merge'? "
            "known: prompts, head, method, query, scores, merge, scale, special, name",
        ),
        (
            lambda seen: seen.saliency("lime"),
            "method=lime: a look at a text computes gradient; harness.compare_attributions(model, prompts) has other "
            "methods",
        ),
        (lambda seen: seen.saliency(prompts=1), "prompts=1: the run has prompts 0-0"),
        (lambda seen: seen.saliency(query="cat"), "query=cat: the text’s vector is of all tokens: leave query out"),
        (
            lambda seen: seen.saliency("gradient", head="L0"),
            "method=gradient: head is what is shown: leave out one of the two",
        ),
        (lambda seen: seen.strongest("cat", n=0), "n=0: pass 1 or more"),
        (
            lambda seen: seen.follow("bird", ["cat"]),
            "query='bird': it is not a word of this prompt; there are: [CLS], The, dog, chased, the, cat, [SEP]",
        ),
        (lambda seen: seen.follow(99, ["cat"]), "query=99: the prompt has words 0-6"),
        (
            lambda seen: seen.follow_table("cat", "THE"),
            "keys='THE': it is at 1 and 4 (counted from 0): pass the number",
        ),
        (lambda seen: seen.follow("cat", []), 'keys=[]: name at least one word, such as keys=["cat"]'),
        (lambda seen: seen.lines().save("x.docx"), "path=x.docx: end the name in .html, .svg, .png or .pdf"),
    ],
)
def test_views_of_a_look_refuse_in_one_line(seen, call, says):
    with pytest.raises(RequestError) as refused:
        call(seen)
    assert str(refused.value) == says


def test_look_command_writes_a_page(command):
    code, out, err = command("look", "model=random", "text=The dog chased the cat")
    assert code == 0, err
    assert "draw-modelview" in Path(out.strip().splitlines()[-1]).read_text(encoding="utf-8")
    code, _, err = command("look", "model=random")
    assert code == 2
    assert "text" in err
    code, _, err = command("look", "model=random", "text=The dog chased the cat", "pair=It ran away")
    assert (code, err) == (2, "pair='It ran away': random is a decoder and reads one text: write both in text\n")


def test_look_takes_what_load_model_takes(tiny):
    plain, tokenizer, _ = random_models.build("gpt2", 0)
    plain.eval()
    with pytest.raises(RequestError, match=r"load_model\(model, tokenizer=tokenizer\)"):
        harness.look(plain, TEXT)
    with pytest.raises(RequestError, match="pass a name, a hub id, a folder"):
        harness.look(object(), TEXT)
    np.testing.assert_allclose(
        harness.look(harness.load_model(plain, tokenizer), TEXT).table("L0H1").values,
        harness.look(tiny("gpt2"), TEXT).table("L0H1").values,
        atol=1e-6,
    )


def test_look_figure_of_the_grid_has_every_head(seen):
    figure = seen.grid().figure()
    assert [text.get_text() for text in figure.axes[0].texts] == [*map(str, seen.run.all_heads)]
    assert len(figure.axes[0].images) == len(seen.run.all_heads)

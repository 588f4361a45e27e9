"""The runner `generate`: against transformers' own `generate`, separate contexts, and a table worked by hand."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import plain
import pytest
import torch
from fakes import fake_run
from launches import ROOT

import harness
from harness import study
from harness.behaviour.stage import TextStage
from harness.behaviour.text_table import texts_table
from harness.config import Place, RunSpec, parse
from harness.execute import run_in_memory
from harness.findings import findings, in_words
from harness.results.schema import TABLES, read_table, write_table
from harness.views import text_section
from harness.views.report import report
from harness.views.terminal import changed_texts

TEXTS = ["When Mary and John went to the store", "gave a drink", "the long day", "When John and Mary went to the store"]
STEPS = 5


def stage_of(shape="llama", **keys):
    values = {
        "model": {"source": "random", "name": "random", "shape": shape},
        "prompts": {"name": "inline", "text": TEXTS},
        "text": {"max_new_tokens": STEPS},
        **keys,
    }
    (stage,) = study.prepare("generate", parse(RunSpec, values)).stages
    assert isinstance(stage, TextStage)
    return stage


def data_of(stage):
    return stage.prompts.dataset().merge(run_in_memory(stage))


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("shape", ["llama", "t5"])
def test_the_clean_text_is_that_of_transformers_token_by_token(shape, sample):
    stage = stage_of(
        shape,
        heads=["L0H1"] if shape != "t5" else ["cross.L0H1"],
        seed=4,
        text={"max_new_tokens": STEPS, "sample": sample},
    )
    data = data_of(stage)
    for number, read in enumerate(stage.writer.reads):
        torch.manual_seed(4)
        ids = torch.tensor([read])
        how = {"do_sample": True, "top_k": 0} if sample else {"do_sample": False}
        new = plain.twin(shape).generate(ids, max_new_tokens=STEPS, attention_mask=torch.ones_like(ids), **how)[0]
        expected = new[1:] if shape == "t5" else new[len(read) :]
        ids = data.clean_new_id.values[number]
        assert ids[ids >= 0].tolist() == expected.tolist()
        assert data.read_text.values[number].startswith(TEXTS[number])


@pytest.mark.parametrize("ablation", [{"name": "zero"}, {"name": "mean"}, {"name": "scale", "factor": -3.0}])
def test_a_set_beside_others_writes_what_it_writes_in_a_context_of_its_own(ablation):
    sets = {"a": ["L0H1", "L1H0"], "b": ["L2"], "c": ["L0"]}
    stage = stage_of(sets=sets, ablation=ablation, n_random_sets=1)
    data, model = data_of(stage), stage.model
    assert [0, 3] in stage.plan()["batches"]
    for name, heads in sets.items():
        with harness.ablated(model, heads, parse(harness.config.AblationSpec, ablation), prompts=stage.prompts):
            texts = [model.generate(text, max_new_tokens=STEPS) for text in TEXTS]
        assert data.ablated_text.sel(set=name).values.tolist() == texts
    assert int(data.ablated_text.attrs["edits_verified"]) > 0
    assert data.parts_at.notnull().any()


def test_a_text_may_begin_with_a_donors_z_at_positions_of_the_prompt(tiny):
    model = tiny("llama")
    other = ["When Paul and Anna went to the store", "gave a store"]
    prompts = harness.load_prompts(TEXTS[:2], model, counterfactual=other)
    heads = model.heads(["L0", "L1"])
    table = harness.compare_texts(model, prompts, heads, {"name": "patch", "positions": "last"}, max_new_tokens=3).table
    twin, d_head = plain.twin("llama"), model.shape.d_head
    for number, row in table.iterrows():
        ids = prompts.token_id[number][: prompts.length[number]]
        last = len(ids) - 1
        new = plain.z(twin, prompts.counterfactual[number][: len(ids)], d_head)
        expected = plain.logits(twin, ids, heads, d_head, new, positions=[last])[-1].softmax(-1)
        clean = plain.logits(twin, ids)[-1].softmax(-1)
        assert (row["parts_at"] == 0) == (int(clean.argmax()) != int(expected.argmax()))
        if row["parts_at"] == 0:
            assert row["ablated_token_ablated"] == pytest.approx(float(expected.max()), abs=1e-5)
            assert row["clean_token_ablated"] == pytest.approx(float(expected[int(clean.argmax())]), abs=1e-5)
    assert table["parts_at"].eq(0).any()
    with harness.ablated(model, heads, {"name": "patch", "positions": [-1]}, prompts=prompts, prompt=0):
        assert model.generate(TEXTS[0], max_new_tokens=3) == table["ablated"][0]


def test_the_first_head_is_the_one_whose_text_parts_soonest():
    stage = stage_of(heads=["L0", "L2H1"], text={"max_new_tokens": STEPS, "singly": True})
    data = data_of(stage)
    heads = stage.model.heads(["L0", "L2H1"])
    alone = data_of(stage_of(sets={str(head): [str(head)] for head in heads}))
    for number, named in enumerate(data.first_head.values[:, 0]):
        parts = alone.parts_at.values[number]
        assert named == ("" if np.isnan(parts).all() else str(heads[int(np.nanargmin(parts))]))
    assert (data.first_head.values != "").any()


def test_random_sets_stand_beside_the_named_one_with_as_many_heads():
    stage = stage_of(sets={"a": ["L0H1", "L1H0"], "b": ["L2H1"]}, n_random_sets=2, seed=3)
    table = texts_table(data_of(stage))
    assert table["set"].tolist() == ["a", "a", "a", "b", "b", "b"] * len(TEXTS)
    assert np.isnan(table["draw"][0])
    assert table["draw"][1:3].tolist() == [0, 1]
    sizes = table["heads"].str.split(";").map(len)
    assert sizes.tolist() == [2, 2, 2, 1, 1, 1] * len(TEXTS)
    again = stage_of(sets={"a": ["L0H1", "L1H0"], "b": ["L2H1"]}, n_random_sets=2, seed=3)
    assert again.plan() == stage.plan()
    assert stage_of(sets={"a": ["L0H1", "L1H0"], "b": ["L2H1"]}, n_random_sets=2, seed=4).plan() != stage.plan()


def test_units_are_the_same_whoever_computes_them_and_when():
    first, second = (stage_of(heads=["L0"], text={"max_new_tokens": 3, "singly": True}) for _ in range(2))
    plan = json.loads(json.dumps(first.plan()))
    numbers = range(len(plan["batches"]))
    assert sorted(number for batch in plan["batches"] for number in batch) == [*range(len(TEXTS))]
    forwards = [first.compute(plan, unit) for unit in numbers]
    backwards = [second.compute(plan, unit) for unit in reversed(numbers)][::-1]
    one, two = first.assemble(plan, forwards), second.assemble(plan, backwards)
    assert one.identical(two)
    for number, text in enumerate(TEXTS):
        assert one.clean_text.values[number].startswith(text)


# --- the run directory ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    values = {
        "model": {"source": "random", "name": "random", "shape": "gpt2"},
        "prompts": {"name": "inline", "text": [*TEXTS[:2], "a <b>drink", "犬が猫を追う"]},
        "sets": {"movers": ["L0", "L1H0"], "<i>": ["L2H1"]},
        "n_random_sets": 1,
        "text": {"max_new_tokens": 4, "singly": True},
    }
    place = Place(run=str(tmp_path_factory.mktemp("runs") / "texts"))
    return harness.open_run(study.run("generate", parse(RunSpec, values), place, lambda *_: None))


def test_a_run_has_its_texts_and_its_check(run):
    assert list(run.texts.columns) == list(TABLES["texts"].columns)
    assert len(run.texts) == 4 * 4
    assert run.manifest["status"] == "complete"
    assert run.manifest["intervention_check"]["edits_verified"] > 0
    assert run.manifest["model"]["chat_template"] is None
    pd.testing.assert_frame_equal(
        pd.read_parquet(run.path / "texts.parquet")["parts_at"].to_frame(), run.texts[["parts_at"]]
    )
    assert "continued by at most 4 tokens, clean and with heads ablated (zero-ablation)" in in_words(run)


def test_the_report_shows_texts_side_by_side_and_as_text(run):
    page = report(run, [])
    body = page.partition('<section id="texts"')[2].partition("</section>")[0]
    assert body.count('<article class="written">') == 4
    assert body.count('<p class="whose">Clean</p>') == 4
    assert "Without &lt;i&gt; (L2H1)" in body
    assert "a &lt;b&gt;drink" in body
    assert "<b>drink" not in page
    assert "犬が猫を追う" in body
    assert body.count("<mark>") <= int(run.texts["parts_at"].notna().sum())
    parted = run.texts[run.texts["draw"].isna() & run.texts["parts_at"].notna()]
    assert len(parted)
    assert f"→ {parted['clean_token_ablated'].iloc[0]:.2f}" in body or "under 0.01" in body


def test_table_cells_are_read_back_as_the_text_that_they_are(tmp_path):
    row = {name: 0.5 for name in TABLES["texts"].columns}
    row |= {"set": "1", "heads": "L0H1", "text": "nan", "clean": "NA", "ablated": "12", "first_head": ""}
    table = pd.DataFrame([{**row, "clean_token": "1", "ablated_token": "\n", "draw": np.nan}])
    write_table(tmp_path, "texts", table)
    pd.testing.assert_frame_equal(read_table(tmp_path, "texts"), table, check_dtype=False)


# --- sentences --------------------------------------------------------------------------------------------------


def hand_made(tmp_path):
    """Five texts: of the set three part, after 1, 4 and 2 tokens; of two random sets one and none."""
    parts = {np.nan: [1, 4, np.nan, 2, np.nan], 0.0: [np.nan, np.nan, 3, np.nan, np.nan], 1.0: [np.nan] * 5}
    first = {np.nan: ["L0H1", "L0H2", "", "L0H1", ""]}
    rows = [
        {
            **dict.fromkeys(TABLES["texts"].columns, 0.25),
            **{"prompt": prompt, "set": "induction", "draw": draw, "heads": "L0H1;L0H2;L1H0;L1H1"},
            **{"text": "a", "clean": "a b", "ablated": "a c" if at == at else "a b", "parts_at": at},
            **{"clean_token": " b", "ablated_token": " c", "first_head": first.get(draw, [""] * 5)[prompt]},
        }
        for draw, each in parts.items()
        for prompt, at in enumerate(each)
    ]
    run = fake_run(tmp_path, n_prompts=5, parts=())
    return replace(run, texts=pd.DataFrame(rows))


def test_a_sentence_counts_the_texts_that_change_beside_random_sets(tmp_path):
    run = hand_made(tmp_path)
    texts = [finding.text for finding in findings(run)]
    assert texts[:2] == [
        "Without induction (4 heads) 3 of 5 texts change, after 2 tokens in the median; 0.5 of 5 with 2 random sets of "
        "4 heads (median; 0 to 1).",
        "Ablated alone, the heads of induction that change a text soonest are L0H1 2 times and L0H2 1 time.",
    ]
    lines = changed_texts(run).splitlines()
    assert lines[2] == "  prompt 0 without induction, new token 1: “ b” (0.25 → 0.25) becomes “ c” (0.25 → 0.25)"
    assert len(lines) == 2 + 3


def test_a_part_of_a_text_is_marked_from_where_it_parts(tmp_path):
    shown = text_section.texts(hand_made(tmp_path))
    assert shown.count("<mark>c</mark>") == 3
    assert "Parts after 1 token: “ b” 0.25 → 0.25; “ c” 0.25 → 0.25. L0H1 alone changes it soonest." in shown
    assert shown.count("The same text.") == 2


# --- wrong requests ---------------------------------------------------------------------------------------------

ASKED = ("model=random", "prompts.n=2")
WRONG = [
    ((), "heads=all: name the heads to write without, heads=[L5H1], or sets of them: sets={movers: [L5H1, L6]}"),
    (("heads=[L9H9]",), "heads=L9H9: L9H9 is outside random: it has layers 0-2"),
    (("sets={a: [L9]}",), "sets.a=L9: L9 is outside random"),
    (("heads=[L0H1]", "text.max_new_tokens=0"), "text.max_new_tokens=0: input should be greater than or equal to 1"),
    (("heads=[L0H1]", "text.max_new_tokens=999"), "text.max_new_tokens=999: this makes 1020 tokens, random takes 256"),
    (("heads=[L0H1]", "text.temperature=0.5"), "text.temperature=0.5: it is of draws: set text.sample=true"),
    (("heads=[L0H1]", "text.sample=true", "text.temperature=0"), "text.temperature=0: input should be greater than 0"),
    (
        ("heads=[L0H1]", "ablation=patch"),
        "ablation.positions=all: the donor of prompt 0 has z at its 21 positions, and",
    ),
    (
        ("heads=[L0H1]", "ablation=resample", "ablation.positions=last", "ablation.draws=2"),
        "ablation.draws=2: a text is written from one donor: use draws=1",
    ),
    (("heads=[L0H1]", "ablation.positions=each"), "ablation.positions=each: a text of any length has no such position"),
    (
        ("heads=[L0H1]", "ablation.positions=[99]"),
        "ablation.positions=[99]: no text gets there: the model reads at most 40 tokens, 0 to 39",
    ),
    (("heads=[L0H1]", "ablation.positions=[-99]"), "ablation.positions=[-99]: position -99 is outside prompt 0"),
    (("sets={a: [L0-L2]}", "n_random_sets=2"), "n_random_sets=2: the set a has 12 heads, and there are 12 to draw"),
    (
        ("heads=[L0H1]", "model.shape=bert", "prompts=inline", "~prompts.n", "prompts.text=['a store']"),
        "model=random: it does not continue a text: load a decoder or an encoder-decoder",
    ),
    (
        ("heads=[L0H1]", "text.steps=3"),
        "text.steps=3: there is no such key; known: max_new_tokens, sample, temperature",
    ),
]


@pytest.mark.parametrize(("arguments", "says"), WRONG)
def test_a_wrong_request_is_one_line_and_writes_nothing(command, tmp_path, arguments, says):
    asked = ASKED if "~prompts.n" not in arguments else ASKED[:1]
    code, out, err = command("generate", *asked, *(each for each in arguments if each != "~prompts.n"))
    assert (code, out) == (2, ""), err
    assert err.startswith(says), err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_the_terminal_names_what_changed(command):
    code, out, err = command("generate", *ASKED, "heads=[L0,L1,L2]", "text.max_new_tokens=3")
    assert code == 0, err
    assert re.search(r"^Without L0H0, .* and 6 more \d of 2 texts change", err, re.MULTILINE)
    assert harness.open_run(out.strip()).manifest["runner"] == "generate"
    assert (ROOT / "experiments" / "generate.py").is_file()


def test_a_run_of_texts_is_reproduced_token_by_token(run, tmp_path):
    from harness.study.reproduce import _of_arrays, reproduce

    result = reproduce(run.path, str(tmp_path), lambda *_: None, lambda _: None)
    assert result.holds
    other = run.data["clean_new_id"].copy()
    other[1, 2] += 5
    moved = [each for each in _of_arrays(run.data, run.data.assign(clean_new_id=other)) if each.before != each.now]
    assert [each.name for each in moved] == ["clean_new_id at prompt 1, new_position 2"]

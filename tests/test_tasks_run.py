"""The runner `evaluate`: tasks of lm-evaluation-harness on the hooked and on the baked model, answer by answer against
plain Hugging Face forwards with hooks on W_O."""

import json
from types import SimpleNamespace

import numpy as np
import plain
import pytest
import torch
import transformers
from thinned import most

import harness
from harness.config import RequestError, RunSpec, StatsSpec, parse
from harness.hooks import Head
from harness.study import prepare

pytest.importorskip("lm_eval")
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from harness.behaviour.task_model import TaskModel
from harness.behaviour.tasks import load_tasks, tasks_table

HEADS = ["L0H1", "L1H2", "L1H3"]
POOLED = {"name": "mean", "means": "pooled"}
ITEMS = [
    ("When Mary and John went to the store, John gave a drink to", ["Mary", "John", "the garden"], 0),
    ("a flower", ["to the office", "and"], 1),
    ("Then Tom and Anna sat down, and Tom spoke to", ["Anna", "Tom"], 0),
    ("", ["the store", "a drink to Anna"], 1),
]
YAML = """
task: choose
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of one task, with its data."""
    path = tmp_path_factory.mktemp("tasks")
    lines = [json.dumps({"context": a, "choices": b, "answer": c}) for a, b, c in ITEMS]
    (path / "choose.jsonl").write_text("\n".join(lines))
    (path / "choose.yaml").write_text(YAML.format(data=path / "choose.jsonl"))
    return path


def plain_score(model, twin, context, choice, heads=(), new=None):
    """The log-probability of a choice after a context, by one plain forward of the two."""
    whole = model.tokens.encode(f"{context} {choice}").token_id if context else None
    before = model.tokens.encode(context).token_id if context else (model.tokens.bos_id,)
    own = whole[len(before) :] if context else tuple(model.tokens.bare(f" {choice}"))
    ids = np.array([*before, *own])
    z = None if new is None else new.expand(-1, len(ids), -1, -1)
    logits = plain.logits(twin, ids, heads, model.shape.d_head, z)
    log_prob = logits[len(before) - 1 : -1].log_softmax(-1)
    return float(log_prob.gather(1, torch.tensor(own)[:, None]).sum())


def answers(log):
    """The log-probability of each choice of each item, as lm-evaluation-harness logs them."""
    return [[value for ((value, _),) in item["resps"]] for item in log]


def logs(stage, heads=()):
    samples, _ = stage._samples(stage.model.heads(heads) if heads else ())
    return sorted(samples["choose"], key=lambda item: item["doc_id"])


def request(folder, **keys):
    values = {
        "model": {"source": "random", "name": "random", "shape": "llama"},
        "prompts": {"name": "ioi", "n": 3},
        "heads": HEADS,
        "tasks": ["choose"],
        "tasks_path": str(folder),
        "stats": {"resamples": 99},
        **keys,
    }
    return prepare("evaluate", parse(RunSpec, values))


@pytest.mark.parametrize("ablation", ["zero", POOLED], ids=str)
def test_hooked_baked_and_plain_models_give_the_same_answers(folder, tmp_path, ablation):
    """One task in three ways; padded with others, or alone."""
    spec = ablation if isinstance(ablation, dict) else {"name": ablation}
    (stage,) = request(folder, ablation=spec).stages
    model, prompts, twin = stage.model, stage.prompts, plain.twin("llama")
    new = None
    if ablation == POOLED:
        every = [plain.z(twin, prompts.token_id[row, :n], model.shape.d_head) for row, n in enumerate(prompts.length)]
        new = torch.cat(every, dim=1).mean(1, keepdim=True)
    baked = harness.bake(model, HEADS, ablation, tmp_path / "baked", prompts=prompts)
    hooked = logs(stage, HEADS)
    own = HFLM(pretrained=str(baked.folder), device="cpu", batch_size=2)  # nothing of the harness
    found = evaluate(own, {"tasks": dict(stage.tasks), "groups": {}}, bootstrap_iters=0)["samples"]["choose"]
    saved = sorted(found, key=lambda item: item["doc_id"])
    heads = [*map(Head.parse, HEADS)]
    want = [[plain_score(model, twin, context, one, heads, new) for one in some] for context, some, _ in ITEMS]
    for got in (answers(hooked), answers(saved)):
        for mine, theirs in zip(got, want, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert [item["acc"] for item in hooked] == [item["acc"] for item in saved]
    assert [item["acc"] for item in hooked] == [
        float(np.argmax(each) == right) for each, (_, _, right) in zip(want, ITEMS, strict=True)
    ]
    clean = [[plain_score(model, twin, context, one) for one in some] for context, some, _ in ITEMS]
    for mine, theirs in zip(answers(logs(stage)), clean, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert max(abs(np.concatenate(clean) - np.concatenate(want))) > 0.1
    items = harness.load_prompts("choices", model, path=str(folder / "choose.jsonl"))
    if new is None:  # a mean is over other prompts than these items
        sets = {"kind": "set", "sets": {"all": HEADS}}
        chosen = harness.ablate_heads(model, items, spec, metrics=["choice_margin", "choice_accuracy"], **sets).data
        margins = [each[right] - max(np.delete(each, right)) for each, (_, _, right) in zip(want, ITEMS, strict=True)]
        got = chosen.clean + chosen.set_effect.sel(set="all")
        np.testing.assert_allclose(got.sel(metric="choice_margin"), margins, atol=1e-4)
        assert got.sel(metric="choice_accuracy").values.tolist() == [item["acc"] for item in hooked]
        for mine, theirs in zip(chosen.choice_log_prob.values, clean, strict=True):
            np.testing.assert_allclose(mine[: len(theirs)], theirs, atol=1e-4)


@pytest.mark.parametrize("bos", most(["auto", "always", "never"], 2))
def test_answers_follow_the_models_policy_for_bos(folder, bos):
    model = harness.load_model("random", shape="gpt2", bos=bos)
    context, (choice, *_), _ = ITEMS[0]
    ids = TaskModel(model).tok_encode(context)
    assert ids == list(model.tokens.encode(context).token_id)
    assert (ids[0] == model.tokens.bos_id) == (bos != "never")
    got = TaskModel(model).loglikelihood([SimpleNamespace(args=(context, f" {choice}"))])
    assert got[0][0] == pytest.approx(plain_score(model, plain.twin("gpt2"), context, choice), abs=1e-4)


def test_an_encoder_decoder_scores_what_it_writes(tiny):
    model, twin = tiny("t5"), plain.twin("t5")
    got = TaskModel(model).loglikelihood(
        [SimpleNamespace(args=each) for each in (("When Mary and John", " a store"), ("a drink", " to"))]
    )
    for (value, _), (context, text) in zip(got, (("When Mary and John", " a store"), ("a drink", " to")), strict=True):
        source, own = model.tokens.encode(context).token_id, model.tokens.bare(text)
        with torch.no_grad():
            out = twin(torch.tensor([source]), decoder_input_ids=torch.tensor([[model.start_id, *own[:-1]]])).logits[0]
        want = out.log_softmax(-1).gather(1, torch.tensor(own)[:, None]).sum()
        assert value == pytest.approx(float(want), abs=1e-4)


def test_a_whole_text_is_scored_in_windows_that_meet(tiny):
    """Shorter than the context: one forward after BOS. Longer: each token once."""
    model, twin = tiny("gpt2"), plain.twin("gpt2")
    text = "When Mary and John went to the store, John gave a drink to Mary. "
    (short,) = TaskModel(model).loglikelihood_rolling([SimpleNamespace(args=(text,))])
    ids = [model.tokens.bos_id, *model.tokens.bare(text)]
    want = plain.logits(twin, np.array(ids))[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum()
    assert short == pytest.approx(float(want), abs=1e-3)
    long, n = text * 20, model.shape.n_ctx
    ids = [model.tokens.bos_id, *model.tokens.bare(long)]
    assert n < len(ids) - 1 < 2 * n
    first = plain.logits(twin, np.array(ids[:n]))
    rest = plain.logits(twin, np.array(ids[-n - 1 : -1]))[2 * n - len(ids) + 1 :]
    want = torch.cat([first, rest]).log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum()
    (value,) = TaskModel(model).loglikelihood_rolling([SimpleNamespace(args=(long,))])
    assert value == pytest.approx(float(want), abs=1e-2)


def test_text_is_written_up_to_a_stop_as_transformers_writes_it(tiny):
    model, twin = tiny("llama"), plain.twin("llama")
    ids = torch.tensor([model.tokens.encode(ITEMS[0][0]).token_id])
    with torch.no_grad():
        new = transformers.LlamaForCausalLM.generate(twin, ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    whole = model.tokenizer.decode(new, skip_special_tokens=True)
    ask = lambda **how: TaskModel(model).generate_until([SimpleNamespace(args=(ITEMS[0][0], how))])[0]  # noqa: E731
    assert ask(max_gen_toks=8) == whole
    stop = whole[len(whole) // 2 :][:2]
    assert ask(max_gen_toks=8, until=[stop]) == whole[: whole.index(stop)]
    with pytest.raises(RequestError, match="^tasks=do_sample=true: text is greedy here"):
        ask(do_sample=True)


# --- the run ----------------------------------------------------------------------------------------------------


def test_a_run_has_both_scores_their_difference_and_every_answer(command, folder):
    code, out, err = command(
        *("evaluate", "model=random", "tasks=[choose]", f"tasks_path={folder}", "prompts.n=3"),
        *("sets={early: [L0, L1H2]}", "n_random_sets=2", "stats.resamples=99"),
    )
    assert code == 0
    run = harness.open_run(out.splitlines()[-1])
    table = run.tasks
    assert table["kind"].tolist() == ["named", "random", "random"]
    assert table["set"].tolist() == ["early"] * 3
    assert [len(heads.split(";")) for heads in table["heads"]] == [5, 5, 5]
    assert table["n"].tolist() == [len(ITEMS)] * 3
    logged = sorted((run.path / "lm_eval").glob("*/samples_choose.jsonl"))
    assert [path.parent.name for path in logged] == ["00_clean", "01_early", "02_early_random_0", "03_early_random_1"]
    means = [np.mean([json.loads(line)["acc"] for line in path.read_text().splitlines()]) for path in logged]
    np.testing.assert_allclose(table["clean"], means[0])
    np.testing.assert_allclose(table["ablated"], means[1:])
    np.testing.assert_allclose(table["difference"], np.array(means[1:]) - means[0])
    assert run.manifest["intervention_check"]["edits_verified"] > 0
    assert f"Without early (5 heads), acc on choose goes from {means[0]:.3f} to {means[1]:.3f}" in err
    assert (run.path / "tasks.parquet").is_file()


def test_the_interval_is_over_paired_items():
    """Worked by hand: of 100 items 20 are lost and none won, so the difference is −0.2 with s.e. 0.04."""
    import xarray as xr

    clean = np.ones(100)
    ablated = np.stack([np.r_[np.zeros(20), np.ones(80)], clean])
    names = np.dtypes.StringDType()
    data = xr.Dataset(
        {
            "clean_score": ("item", clean),
            "ablated_score": (("set", "item"), ablated),
            "item_task": ("item", np.array(["t"] * 100, dtype=names)),
            "item_metric": ("item", np.array(["acc"] * 100, dtype=names)),
            "set_heads": ("set", np.array(["L0H0", "L1H0"], dtype=names)),
            "drawn_beside": ("set", np.array(["", "a"], dtype=names)),
        },
        {"set": ["a", "a random 0"]},
    )
    table = tasks_table(data, StatsSpec(resamples=2000))
    first, second = table.to_dict("records")
    assert (first["clean"], first["ablated"], first["difference"]) == (1.0, 0.8, pytest.approx(-0.2))
    assert (first["ci_low"], first["ci_high"]) == (pytest.approx(-0.28, abs=0.02), pytest.approx(-0.12, abs=0.02))
    assert (second["set"], second["kind"], second["difference"]) == ("a", "random", 0.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(  # it reads all of lm-evaluation-harness's own
            ("tasks=[choos]",),
            "tasks=choos: lm-evaluation-harness has no such task; did you mean 'choose'?",
            marks=pytest.mark.soak,
        ),
        ((), "tasks=[]: name at least one: tasks=[arc_easy]"),
        (("tasks=[choose]", "heads=all"), "heads=all: name the heads"),
        (("tasks=[choose]", "tasks_path=/no/such"), "tasks_path=/no/such: there is no such folder"),
        (("tasks=[choose]", "ablation=mean"), "ablation.means=by_position: tasks have texts of any length; use pooled"),
        (
            ("tasks=[choose]", "ablation=patch"),
            "ablation=patch: tasks have texts of any length; use zero, scale or mean",
        ),
        (("tasks=[choose]", "ablation.positions=last"), "ablation.positions=last: tasks have texts of any length; use"),
        (
            ("tasks=[choose]", "model.shape=bert", "prompts=inline", "prompts.text=[a drink]"),
            "model=random: tasks score what a model writes: load a decoder or",
        ),
        (("tasks=[broken]",), "tasks=broken: this task cannot be loaded (FileNotFoundError"),
    ],
)
def test_a_wrong_request_is_one_line_and_code_2(command, folder, tmp_path, arguments, says):
    (folder / "broken.yaml").write_text(YAML.format(data="/no/such.jsonl").replace("choose", "broken"))
    start = ("evaluate", "model=random", f"tasks_path={folder}", "heads=[L0H1]")
    code, out, err = command(*start, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(says)
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_without_the_extra_its_name_is_in_the_line(command, folder, monkeypatch):
    monkeypatch.setattr("harness.config.run.find_spec", lambda name: None)
    code, _, err = command("evaluate", "model=random", "tasks=[choose]", f"tasks_path={folder}", "heads=[L0H1]")
    assert (code, err) == (2, "tasks=choose: install the tasks: pip install 'attention-harness[eval]'\n")


def test_every_model_reads_the_same_tasks(folder):
    assert [*load_tasks(["choose"], str(folder))] == ["choose"]

"""The notebook runs from top to bottom on a saved run, in a kernel of its own, and shows what it says it shows."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml
from fakes import fake_run, with_claims
from nbclient import NotebookClient

import harness
from harness.results import manifest, open_run, store
from harness.results.schema import write_table

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "experiments" / "notebooks" / "inspect_run.ipynb"
QUESTION = NOTEBOOK.with_name("question_to_claim.ipynb")
MECHANISM = NOTEBOOK.with_name("map_to_mechanism.ipynb")
PAGE = ROOT / "docs" / "question_to_claim.md"


def save(folder, **options):
    """A made-up run as the directory that a real one leaves."""
    run = with_claims(fake_run(folder, **options))
    store.write_data(folder, run.data)
    write_table(folder, "heads", run.heads)
    store.write_text(folder / "spec.yaml", yaml.safe_dump(run.spec))
    manifest.write_manifest(
        folder, {**dict.fromkeys(manifest.KEYS), "format": manifest.FORMAT, "status": "complete", "runner": "study"}
    )
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("study"), lengths=[8, 5, 8])


@pytest.fixture(scope="module")
def cells(folder, tmp_path_factory):
    """The code cells after a run from another working directory, by a word in their source."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys; print('torch' in sys.modules)"))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    paths = {"HARNESS_RUN": str(folder), "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(elsewhere)}
    resources = {"metadata": {"path": str(elsewhere)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute(env={**os.environ, **paths})
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cells, word, kind):
    """What the cell with this word in its source shows as this kind of content."""
    cell = next(cell for cell in cells if word in cell.source)
    found = [out["data"][kind] for out in cell.outputs if kind in out.get("data", {})]
    return "".join(found) if found else "".join(out.get("text", "") for out in cell.outputs)


def test_nothing_goes_wrong_or_warns(cells):
    assert all(out.get("name") != "stderr" for cell in cells for out in cell.outputs)
    assert cells[-1].outputs[0]["text"] == "False\n"  # no torch


def test_the_run_and_its_findings_are_told(cells, folder):
    assert shown(cells, "open_run", "text/plain").startswith(f"Run({folder}, model=smollm2")
    assert "• By logit_diff, " in shown(cells, "in_words(run)", "text/plain")
    assert "• From the last scored position, attention rollout looks most at " in shown(cells, "in_words(run)", "-")
    assert shown(cells, "run.top_heads(metric, 1)", "-").startswith("L1H2 changes logit_diff by ")


def test_the_head_is_shown_as_table_plot_and_arrays(cells, folder):
    table = shown(cells, "views.table(", "text/html")
    assert re.findall(r"<th>\s*(\w+)</th>", table)[-8:] == ["When", "Mary", "and", "John", "went", "to", "the", "store"]
    weight = float(open_run(folder).data.pattern.values[0, 1, 2, 7, 1])
    assert f"<td>{weight:.2f}</td>" in table
    assert len(shown(cells, "imshow", "image/png")) > 5000
    assert "&#x27;pattern&#x27; (query: 8, key: 8)" in shown(cells, "data.pattern", "text/html")


@pytest.mark.parametrize(
    ("call", "part"),
    [("views.attention", "draw-head"), ("views.effects", "draw-map"), ("views.rollout", "draw-compare")],
)
def test_the_views_stand_in_their_frames(cells, call, part):
    view = shown(cells, f"{call}(", "text/html")
    assert view.startswith('<iframe sandbox="allow-scripts"')
    assert f"id=&quot;{part}&quot;" in view


def test_without_a_name_the_newest_complete_study_is_taken(folder, tmp_path, monkeypatch):
    results = tmp_path / "results" / "study"
    for age, name in enumerate(("newer", "older")):
        shutil.copytree(folder, results / name)
        os.utime(results / name / "manifest.json", (1e9 - age, 1e9 - age))
    store.write_text(shutil.copytree(folder, results / "failed") / "manifest.json", "{")
    monkeypatch.delenv("HARNESS_RUN", raising=False)
    monkeypatch.setattr(harness, "__file__", str(tmp_path / "harness" / "__init__.py"))
    first = next(cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    names = {}
    exec(first, names)
    assert names["run"].path == results / "newer"
    shutil.rmtree(results)
    with pytest.raises(FileNotFoundError, match=r"no complete study below .*: run `make run`, or set HARNESS_RUN"):
        exec(first, {})


@pytest.mark.parametrize("path", [NOTEBOOK, QUESTION, MECHANISM], ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata["kernelspec"]["name"] == "python3"


def test_the_page_of_the_question_has_the_notebooks_cells():
    page, at = PAGE.read_text(encoding="utf-8"), 0
    for cell in nbformat.read(QUESTION, as_version=4).cells:
        source = f"```python\n{cell.source}\n```" if cell.cell_type == "code" else cell.source
        for part in source.split("\n\n", 1) if source.startswith("# ") else [source]:  # a note stands below the title
            found = page.find(part, at)
            assert found >= at, f"{PAGE.name} is not the notebook's: run python docs/site/notebooks.py"
            at = found + len(part)


@pytest.mark.soak
def test_from_a_map_to_a_mechanism(smollm2, command, tmp_path):
    """On SmolLM2 itself: what it predicts of L23H3 holds, with the numbers of a sweep of this head alone."""
    code, out, err = command("explain_heads", "heads=[L23H3]", "prompts.n=8")
    assert code == 0, err
    notebook = nbformat.read(MECHANISM, as_version=4)
    assert len(notebook.cells) < 10
    made = {"HARNESS_RUN": str(Path(out.splitlines()[-1]).absolute())}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), **made}
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute(env=environment)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "card-L23H3" in shown(cells, "head_card", "text/html")
    verdict, sentence = cells[-1].outputs[0]["text"].splitlines()
    assert verdict.count(": yes") == 3
    assert "for the second time and lowers it: " in sentence
    fresh = harness.load_prompts("ioi", smollm2, n=28, seed=1)
    alone = harness.ablate_heads(smollm2, fresh, metrics=["logit_diff", "logit"], heads=["L23H3"])
    difference, right = alone["effect"].sel(layer=23, head=3).mean("prompt").values
    assert f"rises by {right - difference:+.2f} (" in sentence
    assert f"the right name's: {right:+.2f})" in sentence


def numbers_of(text):
    """A text without its numbers, and these."""
    return re.sub(r"-?\d+(?:\.\d+)?", "…", text), [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", text)]


@pytest.mark.soak
def test_from_a_question_to_a_checked_claim(smollm2, tmp_path):
    """On SmolLM2 itself (whose weights the fixture has fetched), from top to bottom; its claim is what `facts` says."""
    notebook = nbformat.read(QUESTION, as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute(env=environment)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all("Error" not in out.get("text", "") for cell in cells for out in cell.outputs)
    side_by_side = shown(cells, "compare_texts", "text/html")
    assert side_by_side.count("<tr>") == 1 + 4 * 2
    claim = cells[-1].outputs[0]["text"]
    assert claim.startswith(
        "Of 12 heads tried on IOI prompts L23H3 helps most: zeroing it changes the logit difference"
    )
    assert claim.endswith("looks more at the wrong name. This holds on fresh prompts and under mean-ablation.\n")
    assert "draw-headview" in shown(cells, "harness.look(patterns", "text/html")
    printed = [out["text"].splitlines() for cell in cells for out in cell.outputs if out.get("name") == "stdout"]
    on_page = re.findall(
        r"^    ([^<\s].*)$", re.sub(r"(?s)```.*?```|!!! note.*?\n\n\*", "", PAGE.read_text(encoding="utf-8")), re.M
    )
    for mine, kept in zip([line.strip() for lines in printed for line in lines], on_page, strict=True):
        (text, values), (same, known) = numbers_of(" ".join(mine.split())), numbers_of(" ".join(kept.split()))
        assert text == same
        assert values == pytest.approx(known, abs=0.021)  # the last digit is another machine's own

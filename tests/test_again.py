"""A saved run with other settings: what changes, what follows, and what is refused."""

import pytest
import yaml

import harness
from harness import study
from harness.config import Place, RequestError, RunSpec, parse
from harness.results.objects import folder_at
from harness.study.again import with_changes


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    values = {
        "model": {"source": "random", "name": "random", "shape": "llama", "seed": 0},
        "prompts": {"name": "ioi", "n": 3, "seed": 0},
        "metrics": ["loss"],
        "heads": ["L0H1"],
        "stats": {"resamples": 50, "seed": 5},
    }
    place = Place(run=str(tmp_path_factory.mktemp("runs") / "first"))
    return study.run("ablate_heads", parse(RunSpec, values), place, lambda *_: None)


def test_a_named_section_replaces_the_saved_one(saved):
    again = with_changes(saved, {"ablation": "resample"})
    assert again.runner == "ablate_heads"
    assert again.settings["ablation"] == {"name": "resample", "positions": "all", "of": ["z"], "draws": 1, "seed": 0}
    assert again.changed["ablation.name"] == ("zero", "resample")


def test_a_key_changes_and_the_rest_of_its_section_stays(saved):
    again = with_changes(saved, {"prompts": {"n": 5}, "sweep": {"direct": False}})
    assert again.settings["prompts"] | {"names": None} == {"name": "ioi", "n": 5, "seed": 0, "names": None}
    assert set(again.changed) == {"prompts.n", "sweep.direct"}


def test_a_seed_goes_where_the_old_one_was_and_not_to_the_models_weights(saved):
    again = with_changes(saved, {"seed": 3})
    seeds = {
        key: values["seed"] for key, values in again.settings.items() if isinstance(values, dict) and "seed" in values
    }
    assert seeds == {"model": 0, "prompts": 3, "stats": 5, "attribution": 3, "roles": 3}
    assert again.settings["seed"] == 3


def test_a_users_own_folder_of_configs_comes_first(saved, tmp_path):
    (tmp_path / "ablation").mkdir()
    (tmp_path / "ablation" / "last.yaml").write_text("name: zero\npositions: last\nof: [z]\n")
    again = with_changes(saved, {"ablation": "last"}, [tmp_path])
    assert again.changed == {"ablation.positions": ("all", "last")}


def test_the_new_run_names_its_parent_and_is_another(saved, tmp_path):
    again = with_changes(saved, {"ablation": {"name": "scale", "factor": 0.0}})
    place = Place(run=str(tmp_path / "second"))
    run = harness.open_run(
        study.run(again.runner, parse(RunSpec, again.settings), place, lambda *_: None, parent=str(saved))
    )
    first = harness.open_run(saved)
    assert run.manifest["parent"] == str(saved)
    assert first.manifest["parent"] is None
    assert run.manifest["hash"] != first.manifest["hash"]
    assert float(abs(run.data["effect"] - first.data["effect"]).max()) < 1e-6  # z times 0 is zero-ablation


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "nothing changes: add a key, such as ablation=mean"),
        ({"prompts": {"n": 3}}, "nothing changes"),
        ({"ablation": "men"}, "ablation=men: did you mean 'mean'"),
        ({"prompts": {"name": "prosee"}}, "prompts=prosee: did you mean 'prose'"),
    ],
)
def test_what_cannot_be_changed_is_refused_in_one_line(saved, changes, line):
    with pytest.raises(RequestError) as refused:
        with_changes(saved, changes)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_directory_without_a_run_is_refused(tmp_path, saved):
    with pytest.raises(RequestError, match="there is no such directory"):
        with_changes(folder_at(tmp_path / "nowhere"), {"seed": 1})
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"model": 3}))
    with pytest.raises(RequestError, match=r"it has no manifest.json"):
        with_changes(folder_at(tmp_path), {"seed": 1})

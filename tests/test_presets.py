"""Every config file of a runner, a group or a preset is composed and validated."""

import re
from itertools import takewhile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from thinned import most

from harness import config
from harness.command.runners import RUNNERS as TABLE
from harness.config import RunSpec, parse

CONF = config.conf_dir()
RUNNERS = (
    *("study", "cache_attention", "ablate_heads", "compare_attributions", "profile_heads", "compare_models"),
    *("trace_context", "generate"),
)
GIVEN = {
    "model/hub": ["++model.id=a/b"],
    "model/path": ["++model.path=x"],
    "model/gguf": ["++model.path=x"],
    "prompts/inline": ["++prompts.text=[a]"],
    "prompts/file": ["++prompts.path=x"],
    "prompts/token_ids": ["++prompts.token_id=[[1,2]]"],
    "prompts/choices": ["++prompts.task=[npi]"],
}
GIVEN["experiment/reproduce_arena_induction"] = GIVEN["model/path"]
CHOICES = sorted(str(path.relative_to(CONF).with_suffix("")) for path in CONF.glob("*/*.yaml"))


def composed(runner, *overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        values = OmegaConf.to_container(compose(runner, overrides=list(overrides)), resolve=True)
    return {key: value for key, value in values.items() if key not in ("store", "run", "resume", "dry_run")}


@pytest.mark.parametrize("runner", RUNNERS)
def test_the_defaults_of_a_runner_are_valid(runner):
    assert parse(RunSpec, composed(runner)).model.name == "smollm2"


@pytest.mark.parametrize("choice", most(CHOICES[::2] + CHOICES[1::2], len(CHOICES) // 2))
def test_every_choice_of_every_group_is_valid(choice):
    group, name = choice.split("/")
    parse(RunSpec, composed("study", f"{group}={name}", *GIVEN.get(choice, [])))


def test_the_defaults_in_yaml_are_those_of_the_types():
    values = composed("study")
    bare = parse(RunSpec, {"model": values["model"], "prompts": values["prompts"]})
    assert parse(RunSpec, values) == bare


def test_a_preset_beats_the_defaults():
    assert parse(RunSpec, composed("study", "experiment=induction")).prompts.name == "induction"


def test_every_runner_has_a_config_and_every_config_a_runner():
    scripts = {path.stem for path in Path(CONF.parent / "experiments").glob("[a-z]*.py")}
    assert scripts == {path.stem for path in CONF.glob("*.yaml")} - {"config"} == {*TABLE}


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_a_preset_begins_with_its_question_and_its_cost(path):
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    assert first == "# @package _global_"
    about = list(takewhile(lambda line: line.startswith("# "), lines))
    assert len(about) >= 2
    assert re.search("[?？。]|Unverified: ", " ".join(about[:-1]))
    measured = r"about [\d.]+ (s|min)( for each model)? and [\d.]+ GB on two cores"
    assert re.fullmatch(rf"# Cost: ({measured}|not measured \(.+\))\.", about[-1])


@pytest.mark.parametrize(
    ("launcher", "plugin", "target"),
    [
        ("slurm", "hydra_plugins.hydra_submitit_launcher", "SlurmLauncher"),
        ("processes", "hydra_plugins.hydra_joblib_launcher", "JoblibLauncher"),
        ("cluster", "hydra_plugins.hydra_ray_launcher", "RayLauncher"),
    ],
)
def test_a_launcher_preset_is_its_plugins(launcher, plugin, target):
    pytest.importorskip(plugin)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        chosen = compose("study", overrides=[f"hydra/launcher={launcher}"], return_hydra_config=True).hydra.launcher
    assert chosen._target_.endswith(target)

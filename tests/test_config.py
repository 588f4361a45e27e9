"""The crossing from YAML and command lines to frozen specs, and what it says when something is wrong."""

from dataclasses import FrozenInstanceError
from typing import get_type_hints

import pytest
import yaml

from harness import config
from harness.config import RequestError, RunSpec, named_model, parse, spec_hash

GOOD = {"model": {"name": "m", "source": "hub", "id": "gpt2"}, "prompts": {"name": "ioi"}}


def changed(path, value):
    """GOOD with one value put in, which may be at a place that does not exist."""
    made = yaml.safe_load(yaml.safe_dump(GOOD))
    *way, last = path.split(".")
    here = made
    for part in way:
        here = here.setdefault(part, {})
    here[last] = value
    return made


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("foo", 3, "foo=3: there is no such key; known: model, prompts"),
        ("model.dtype", "fp8", "model.dtype=fp8: known: float32, bfloat16, float16"),
        ("model.idd", "x", "model.idd=x: there is no such key; did you mean 'id'?"),
        ("model.source", "hubb", "model.source=hubb: did you mean 'hub'?"),
        ("model.source", "path", "model.path=???: set it: model.path=…"),
        ("prompts.name", "iio", "prompts.name=iio: did you mean 'ioi'?"),
        ("prompts.n", 0, "prompts.n=0: input should be greater than or equal to 1"),
        ("prompts.n", "many", "prompts.n=many: input should be a valid integer"),
        ("prompts.sede", 1, "prompts.sede=1: there is no such key; did you mean 'seed'?"),
        ("ablation.name", "zeros", "ablation.name=zeros: did you mean 'zero'?"),
        ("sweep.kind", "singel", "sweep.kind=singel: did you mean 'single'?"),
        ("sweep.memory", 0, "sweep.memory=0: input should be greater than 0"),
        ("stats.level", 1.5, "stats.level=1.5: input should be less than 1"),
        ("attribution.rollout.residul", 1, "there is no such key; did you mean 'residual'?"),
        ("attribution.rollout.residual", 2, "attribution.rollout.residual=2: input should be less than or equal to 1"),
        ("seed", "x", "seed=x: input should be a valid integer"),
        ("metrics", 3, "metrics=3: give a list, such as metrics=[…]"),
    ],
)
def test_a_mistake_names_the_key_the_value_and_the_remedy(path, value, says):
    with pytest.raises(RequestError) as refused:
        parse(RunSpec, changed(path, value))
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("old", config.RENAMED)
def test_parse_refuses_an_old_key_with_its_new_name(old):
    path, is_value, value = old.partition("=")
    value = value or 20
    new = config.RENAMED[old]
    expected = f"{path}={value}: this {'value' if is_value else 'key'} is now {new}"
    with pytest.raises(RequestError) as refused:
        parse(RunSpec, changed(path, value))
    assert str(refused.value) == expected
    if not is_value:
        *section, key = new.split(".")
        inside = get_type_hints(RunSpec)[section[0]] if section else RunSpec
        assert key in get_type_hints(inside), f"{new} is no key"


def test_parse_names_the_inner_key_of_a_renamed_section():
    with pytest.raises(RequestError, match="^other.dtype=bfloat16: this key is now compare.model.dtype$"):
        parse(RunSpec, changed("other", {"dtype": "bfloat16"}))


def test_parse_refuses_an_old_key_with_a_prefix_and_in_a_list():
    with pytest.raises(RequestError, match="^sweep.until=3: this key is now sweep.max_heads$"):
        parse(config.SweepSpec, {"until": 3}, "sweep.")
    with pytest.raises(RequestError, match="^sweep.kind=keep: this value is now complement$"):
        parse(config.SweepSpec, {"kind": ["single", "keep"]}, "sweep.")


def test_what_the_user_must_say_is_asked_for():
    with pytest.raises(RequestError, match=r"model.id=\?\?\?: set it"):
        parse(RunSpec, changed("model.id", "???"))


def test_a_spec_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        parse(RunSpec, GOOD).seed = 3


def test_a_place_is_words_with_the_home_directory_in_full(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    place = parse(config.Place, {"store": "~/runs", "run": 7})
    assert (place.store, place.run, place.resume) == ("/home/me/runs", "7", None)
    assert parse(config.RenderSpec, {"run": "~/x"}).run == "/home/me/x"
    assert named_model("path", path="~/m").path == "/home/me/m"
    assert named_model("hub", id=7).id == "7"
    with pytest.raises(RequestError, match="run=a: resume goes on in its own directory"):
        parse(config.Place, {"run": "a", "resume": "b"})


def test_one_name_is_a_list_of_one():
    assert parse(RunSpec, changed("heads", "L5H1")).heads == ("L5H1",)


def test_an_unknown_model_is_refused_with_the_nearest():
    with pytest.raises(RequestError, match="model=smolm2: did you mean 'smollm2'"):
        named_model("smolm2")


def test_keywords_take_the_place_of_values():
    assert named_model("hub", id="a/b").id == "a/b"
    assert named_model("random", shape="gpt2").shape == "gpt2"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.id", "other"),
        ("model.dtype", "bfloat16"),
        ("model.bos", "always"),
        ("prompts.n", 31),
        ("prompts.seed", 1),
        ("metrics", ["kl"]),
        ("heads", ["L0"]),
        ("sweep.kind", "layer"),
        ("stats.resamples", 9),
        ("attribution.rollout.residual", 0.4),
        ("cache.dtype", "float16"),
        ("seed", 1),
    ],
)
def test_what_decides_a_number_changes_the_hash(path, value):
    assert spec_hash("study", parse(RunSpec, changed(path, value))) != spec_hash("study", parse(RunSpec, GOOD))


@pytest.mark.parametrize(("path", "value"), [("show.prompts", [1]), ("execute.name", "local"), ("sweep.memory", 1.0)])
def test_what_decides_no_number_does_not(path, value):
    assert spec_hash("study", parse(RunSpec, changed(path, value))) == spec_hash("study", parse(RunSpec, GOOD))


def test_the_runner_is_part_of_the_hash():
    assert spec_hash("study", parse(RunSpec, GOOD)) != spec_hash("ablate_heads", parse(RunSpec, GOOD))


@pytest.mark.parametrize("name", config.model_names())
def test_every_named_model_is_a_valid_spec(name):
    given = {"hub": {"id": "a/b"}, "path": {"path": "x"}, "gguf": {"path": "x"}}.get(name, {})
    assert named_model(name, **given).name == name

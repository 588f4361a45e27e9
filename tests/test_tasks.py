"""Task sets: what their items promise, and that the answer is right by a rule that is not the one that wrote it."""

import doctest
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from harness.config import RequestError
from harness.prompts import tasks
from harness.prompts.tasks import TASKS, Task, make_items
from harness.prompts.tasks.task import Cell, Question

N = 200
NAMES = list(TASKS)

FEMININE = {"girl", "woman", "queen", "actress", "waitress", "aunt", "mother", "daughter", "sister", "princess", "wife"}
FEMININE |= {"granddaughter", "landlady"}
IRREGULAR_PLURALS = {"children", "thieves", "women", "men", "wives"}
SINGULAR_IN_S = {"actress", "waitress", "princess", "witness"}
OPERATIONS = {
    r"\+|plus|sum|add|added|Adding": lambda x, y: x + y,
    r"-|minus|difference|subtract|Taking|taken": lambda x, y: abs(x - y),
    r"\*|times|product|multiply|Multiplying|each bowl": lambda x, y: x * y,
}
UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
SPELLED = {word: number for number, word in enumerate(f"{UNITS} eighteen nineteen".split())}
TENS = ["ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SPELLED |= {ten: 10 * at for at, ten in enumerate(TENS, start=1)}


@cache
def of(name, n=N, seed=0, length=None):
    return make_items(name, n, seed, length)


def right(item):
    return item.choices[item.answer]


def is_plural(noun):
    return noun in IRREGULAR_PLURALS or (noun.endswith("s") and noun not in SINGULAR_IN_S)


def number_of(word):
    """The number that digits or English words name."""
    return int(word) if word.isdecimal() else sum(SPELLED[part] for part in word.split("-"))


def spread(values, levels):
    """How much more often the most frequent level occurs than the rarest one, which may be missing."""
    counts = Counter(values)
    assert {*counts} <= {*levels}
    return max(counts.values()) - min(counts[level] for level in levels)


@pytest.mark.parametrize("name", NAMES)
def test_items_are_many_and_different(name):
    items = of(name)
    assert len({(item.context, frozenset(item.choices)) for item in items}) == len(items) == N
    assert len({item.cluster for item in items}) >= 28
    assert all(len(set(item.choices)) == len(item.choices) == round(1 / TASKS[name].chance) for item in items)


@pytest.mark.parametrize("name", NAMES)
def test_every_item_of_the_design_can_be_made(name):
    most = len(TASKS[name].design())
    items = of(name, n=most, length=20 if TASKS[name].length else None)
    assert len({(item.context, frozenset(item.choices)) for item in items}) == most >= 200
    with pytest.raises(RequestError, match=rf"^prompts.n={most + 1}: {name} has 1 to {most} different items$"):
        make_items(name, most + 1)


def test_what_is_drawn_again_for_alike_cells_is_different():
    cells = [Cell("frame", {"factor": "level"})] * 8
    task = Task(
        "", "", 1 / 2, lambda: cells, lambda cell, rng, length: Question(f"{rng.integers(8)} is", "even", ("odd",))
    )
    items = task.make(8, np.random.default_rng(0))
    assert sorted(item.context for item in items) == [f"{number} is" for number in range(8)]


@pytest.mark.parametrize("name", NAMES)
def test_texts_join_with_one_blank(name):
    for item in of(name):
        assert all(text == " ".join(text.split()) for text in (item.context, *item.choices))
        assert (item.context == "") == (name == "npi")
        assert all(item.choices)
        assert "{" not in item.context + "".join(item.choices)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_items_and_another_seed_others(name):
    first, again, other = (make_items(name, 40, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert (
        len({item.cluster + str(item.tags) for item in first} - {item.cluster + str(item.tags) for item in other}) > 5
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [8, 100])
def test_places_of_the_answer_frames_and_factors_are_even(name, n):
    items = of(name, n)
    assert spread((item.answer for item in items), range(len(items[0].choices))) <= 1
    clusters = Counter(item.cluster for item in items)
    frames = {cell.cluster for cell in TASKS[name].design()}
    assert len(clusters) >= (0.8 if name in ("capitals", "facts") else 1) * min(
        n, len(frames)
    )  # frames of uneven factors
    assert max(clusters.values()) <= -(-n // len(clusters)) + 1
    assert len({tuple(item.tags) for item in items}) == 1
    for factor in items[0].tags:
        designed = {cell.tags[factor] for cell in TASKS[name].design()}
        assert spread((item.tags[factor] for item in items), designed) <= max(2, 0.1 * n / len(designed)), factor


@pytest.mark.parametrize("name", ["agreement", "reflexive"])
def test_number_of_the_subject_and_attractor_are_crossed(name):
    first, second = {"agreement": ("subject", "attractor"), "reflexive": ("contrast", "attractor")}[name]
    designed = {(cell.tags[first], cell.tags[second]) for cell in TASKS[name].design()}
    assert len(designed) == {"agreement": 4, "reflexive": 6}[name]
    assert spread(((item.tags[first], item.tags[second]) for item in of(name, 96)), designed) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_no_rule_that_ignores_the_context_beats_chance(name):
    """The longest, the shortest, the one of most words, the most frequent; the place is even."""
    items = of(name)
    often = Counter(choice for item in items for choice in item.choices)
    best = TASKS[name].chance + 4 * np.sqrt(TASKS[name].chance * (1 - TASKS[name].chance) / N)
    rules = {
        "longest": len,
        "shortest": lambda text: -len(text),
        "most words": lambda text: text.count(" "),
        "most frequent": lambda text: often[text],
    }
    for rule, score in rules.items():
        picked = []
        for item in items:
            scores = [score(choice) for choice in item.choices]
            ties = [at for at, value in enumerate(scores) if value == max(scores)]
            picked.append((item.answer in ties) / len(ties))
        assert np.mean(picked) < best, rule


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("arithmetic", "copy_name", "needle", "npi")])
def test_no_choice_stands_in_the_context(name):
    for item in of(name):
        words = re.findall(r"[\w-]+", item.context.lower())
        assert not [choice for choice in item.choices if choice.lower() in words], item


def test_a_verb_agrees_with_the_first_noun_and_the_attractor_is_what_its_tag_states():
    for item in of("agreement"):
        noun, *others = [word for word in re.findall(r"(?<=[Tt]he )\w+", item.context)]
        plural = right(item) in ("are", "were", "have", "seem", "look", "need")
        assert plural == is_plural(noun) == (item.tags["subject"] == "plural"), item
        assert (is_plural(others[0]) == plural) == (item.tags["attractor"] == "match"), item
        assert ("that" in item.context) == ("relative" in item.tags["structure"])


def test_a_reflexive_agrees_with_the_first_noun_and_a_mismatch_would_be_the_attractors():
    def reflexive(noun):
        return "themselves" if is_plural(noun) else "herself" if noun in FEMININE else "himself"

    for item in of("reflexive"):
        first, attractor = re.findall(r"(?<=[Tt]he )\w+", item.context)
        assert right(item) == reflexive(first), item
        wrong = item.choices[1 - item.answer]
        assert reflexive(attractor) == (wrong if item.tags["attractor"] == "mismatch" else right(item)), item


def test_a_negative_polarity_item_is_licensed_in_the_right_sentence_alone():
    """A negation before the item, and not inside a relative clause between subject and verb."""
    for item in of("npi"):
        wrong = item.choices[1 - item.answer]
        assert len(right(item).split()) == len(wrong.split())
        for sentence, licensed in ((right(item), True), (wrong, False)):
            before, _ = re.split(r" (?:ever|any|yet|at all)\b", sentence, maxsplit=1)
            main = re.sub(r" that (?:the|no) \w+ \w+", "", before)
            assert bool(re.search(r"\b(no|none|few|not)\b", main.lower())) == licensed, sentence
        if item.tags["licensor"] == "scope":
            assert Counter(right(item).lower().split()) == Counter(wrong.lower().split())
        else:
            assert sum(a != b for a, b in zip(right(item).split(), wrong.split(), strict=True)) == 1


def test_capitals_are_of_their_country_with_one_near_choice():
    known = {"France": "Paris", "Japan": "Tokyo", "Egypt": "Cairo", "Canada": "Ottawa", "Australia": "Canberra"}
    items = of("capitals", len(TASKS["capitals"].design()))
    capital_of = {item.cluster: right(item) for item in items}
    continent = {right(item): item.tags["continent"] for item in items}
    assert {country: capital_of[country] for country in known} == known
    assert len({*capital_of.values()}) == len(capital_of)
    for item in items:
        assert item.cluster in item.context
        assert not item.context.lower().count(right(item).lower()[:4])
        near = [choice for choice in item.choices if continent[choice] == item.tags["continent"]]
        assert len(near) == 2
        assert len({continent[choice] for choice in item.choices}) == 3


def test_facts_offer_answers_of_the_same_relation():
    items = of("facts", len(TASKS["facts"].design()))
    answers = {}
    for item in items:
        answers.setdefault(item.tags["relation"], set()).add(right(item))
    assert len(answers) >= 8
    assert all({*item.choices} <= answers[item.tags["relation"]] for item in items)
    days, months = ([right(item) for item in items if item.tags["relation"] == kind] for kind in ("day", "month"))
    assert (len({*days}), len({*months})) == (7, 12)
    told = {item.cluster.split(": ")[1]: right(item) for item in items}
    assert [told[day] for day in ("Sunday", "January", "hot", "legs of a spider")] == [
        "Monday",
        "February",
        "cold",
        "eight",
    ]


def test_results_are_right_and_the_rank_of_the_right_one_is_even():
    items = of("arithmetic")
    assert spread((item.tags["rank"] for item in items), "0123") <= 1
    for item in items:
        number = rf"\d+|(?:{'|'.join(SPELLED)})(?:-\w+)?"
        first, second = (number_of(word) for word in re.findall(rf"\b(?:{number})\b", item.context))
        (compute,) = [
            each for pattern, each in OPERATIONS.items() if re.search(rf"(?<!\w)(?:{pattern})(?!\w)", item.context)
        ]
        values = [number_of(choice) for choice in item.choices]
        assert values[item.answer] == compute(first, second), item
        assert min(values) >= 0
        assert max(abs(value - values[item.answer]) for value in values) <= 9
        assert sorted(values).index(values[item.answer]) == int(item.tags["rank"])


def test_the_copied_name_follows_in_the_first_list_the_one_that_ends_the_second():
    for item in of("copy_name"):
        listed = re.findall("|".join(item.choices), item.context)
        first, again = listed[:4], listed[4:]
        assert {*first} == {*item.choices}
        assert again == first[: len(again)]
        assert right(item) == first[len(again)]
        assert item.tags["place"] == ("second", "third", "fourth")[len(again) - 1]
        assert re.search(r"(,|;| and)$", item.context)


@pytest.mark.parametrize("length", [20, 150, 1500])
def test_the_needle_stands_once_in_its_third_of_the_filler(length):
    for item in of("needle", 48, length=length):
        *sentences, stem = re.split(r"(?<=\.) ", item.context)
        (at,) = [place for place, sentence in enumerate(sentences) if sentence.startswith(f"{stem} ")]
        assert sentences[at] == f"{stem} {right(item)}."
        others = [
            sentence
            for sentence in sentences
            if sentence[:-1].split()[-1] in item.choices and sentence != sentences[at]
        ]
        assert len(others) == (3 if item.tags["others"] == "in the text" else 0)
        filler = sum(len(sentence.split()) for sentence in sentences) - len(sentences[at].split()) * (1 + len(others))
        assert length - 9 < filler <= length
        assert len({*sentences}) == len(sentences)
        third = ("first third", "middle third", "last third").index(item.tags["depth"])
        assert third / 3 < (at + 1) / len(sentences)
        assert at / len(sentences) < (third + 1) / 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            dict(name="agrement"),
            r"^prompts.task=agrement: did you mean 'agreement'\? known: agreement, reflexive, npi,",
        ),
        (dict(name="npi", n=0), r"^prompts.n=0: npi has 1 to 240 different items$"),
        (dict(name="npi", length=150), r"^prompts.length=150: npi has no filler; leave it out, or use needle$"),
        (dict(name="needle", length=19), r"^prompts.length=19: needle takes 20 to 1500 words of filler$"),
        (dict(name="needle", length=1501), r"^prompts.length=1501: needle takes 20 to 1500 words of filler$"),
    ],
)
def test_a_wrong_request_names_its_key_and_what_would_be_right(asked, message):
    with pytest.raises(RequestError, match=message):
        make_items(**asked)


def test_the_example_of_make_items_runs():
    (example,) = doctest.DocTestFinder(recurse=False).find(tasks.make_items, "make_items")
    assert doctest.DocTestRunner().run(example) == (0, 3)

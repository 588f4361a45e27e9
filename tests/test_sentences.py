"""Every sentence of a report, read back and computed again from the run's arrays and tables.

A reader is a template and a check. Each sentence must match one template in full, and the check computes what stands in
it with numpy and pandas alone: nothing of `harness.findings` is used. Intervals that are in no table come from
`harness.stats.summarize`. A sentence that no reader knows fails; so does one whose numbers are changed.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fakes import fake_run, with_claims
from thinned import most

import harness
from harness import study
from harness.config import RunSpec, parse
from harness.findings import findings, head_weights, questions, reading
from harness.stats import summarize
from harness.sweep import fast

# --- templates --------------------------------------------------------------------------------------------------

SIZE = r"(?:\d\.\d\de[+-]\d\d|0\.0{0,3}[1-9]\d\d|\d\.\d\d|\d\d\.\d|\d{3,6}|0)"
PLAIN, SIGNED = rf"(?:−?{SIZE})", rf"(?:[+−]{SIZE}|0)"
HEAD, UNIT = r"(?:(?:encoder|decoder|cross)\.)?L\d+H\d+", r"(?: nats| logits)?"
CHANCE = r"p (?:< 0\.001|\d[\d.e-]*)"
SPREAD = rf"(?:{UNIT} \([\d.]+ % interval {SIGNED} to {SIGNED}\)| ± [\d.e+-]+{UNIT} \(standard error\)"
SPREAD += rf"|{UNIT} \(one prompt, so no spread\))"
BRIEF = rf"{SIGNED}(?: \({SIGNED} to {SIGNED}\)| ± [\d.e+-]*\d)?"
TWO = r"−?\d\.\d\d"
ITEM = rf"{HEAD} {SIGNED}(?:, max-T {CHANCE})?"
KINDS = {
    **{"word": r"\w+", "any": r".+?", "head": HEAD, "int": r"\d+", "real": r"\d[\d.e-]*", "unit": UNIT, "two": TWO},
    **{"signed": SIGNED, "plain": PLAIN, "size": SIZE, "chance": CHANCE, "brief": BRIEF},
    **{"s": "s", "over": r"\d+ prompts?|scored tokens", "briefly": rf"\w+ {BRIEF}(?:(?:, | and )\w+ {BRIEF})*"},
    **{"told": SIGNED + SPREAD, "mean": PLAIN + SPREAD},
    **{"briefs": rf"{HEAD} {BRIEF}(?:(?:, | and ){HEAD} {BRIEF})*", "items": rf"{ITEM}(?:(?:, | and ){ITEM})*"},
    **{f"{noun}s": rf"\d+ {noun}s?" for noun in ("head", "prompt", "cluster", "pair", "part", "block", "role")},
}
READERS = []


def compiled(template):
    """``<name:kind>`` is a group, ``[[…]]`` may be missing; all else is literal."""
    made = ""
    for piece in re.split(r"(<\w+:\w+>|\[\[|\]\])", template):
        group = re.fullmatch(r"<(\w+):(\w+)>", piece)
        made += (
            rf"(?P<{group[1]}>{KINDS[group[2]]})" if group else {"[[": "(?:", "]]": ")?"}.get(piece) or re.escape(piece)
        )
    return re.compile(made)


def reads(*templates):
    """The check of sentences of these forms; it takes the run and what stands at each name."""

    def keep(check):
        READERS.extend((check.__name__, compiled(template), check) for template in templates)
        return check

    return keep


def read(saved, text):
    """Check a sentence by the one reader that knows it; its name."""
    found = [(name, pattern.fullmatch(text), check) for name, pattern, check in READERS]
    found = [each for each in found if each[1]]
    assert len(found) == 1, f"{[name for name, *_ in found]} read: {text}"
    name, match, check = found[0]
    check(saved, SimpleNamespace(**match.groupdict()))
    return name


# --- numbers and names ------------------------------------------------------------------------------------------


def value_of(text):
    return float(text.replace("−", "-"))


def near(text, value, digits=3):
    """Whether the text is this number to so many significant digits."""
    assert value_of(text) == pytest.approx(value, rel=6 * 10.0**-digits, abs=1e-12), (text, value)


def two(text, value):
    """Whether the text is this number to two decimals."""
    assert abs(value_of(text) - value) <= 0.00501, (text, value)
    assert value > -0.0049 or text.startswith("−")


def counted(text, n, noun):
    assert text == f"{n} {noun}{'' if n == 1 else 's'}"


def written_p(p):
    return "p < 0.001" if p < 0.001 else f"p {p:.2g}"


def listed(parts):
    parts = list(map(str, parts))
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def items(text, pattern):
    """The parts of ``a, b and c``."""
    found = re.findall(pattern, text)
    assert listed(found) == text
    return found


UNITS = {
    "loss": " nats",
    "kl": " nats",
    "logit_diff": " logits",
    "logit": " logits",
    "label": " logits",
    "choice_margin": " nats",
}
#: The sign of an effect that means that a head helped.
HELPS = {
    "loss": 1,
    "logit_diff": -1,
    "logit": -1,
    "accuracy": -1,
    "prob": -1,
    "label": -1,
    "choice_margin": -1,
    "choice_accuracy": -1,
}
DISTANCES = ("kl", "embedding")
INFINITIVE = {"help": "helps", "hurt": "hurts", "matter": "matters"}


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float = np.nan
    high: float = np.nan
    kind: str = "one prompt"


class Saved:
    """A run with what checks read of it."""

    def __init__(self, run):
        self.run, self.data, self.spec, self._known = run, run.data.load(), run.spec, {}
        asked = {"confidence": 0.95, "level": 0.05, "resamples": 10_000, "seed": 0, "min_effect": 0.05}
        asked |= {key: value for key, value in (run.spec.get("stats") or {}).items() if key in asked}
        self.level, self.share = asked["level"], asked.pop("min_effect")
        self.asked, self.percent = asked, f"{100 * asked['confidence']:g} %"

    def metrics(self):
        """The leading metric first."""
        names = list(map(str, self.data["metric"].values))
        first = "logit_diff" if "logit_diff" in names else names[0]
        return [first, *[name for name in names if name != first]]

    def heads_of(self, array):
        """The values of an array for each head, the other axes in their order."""
        dims = [dim for dim in ("stack", "layer", "head") if dim in array.dims]
        rest = [dim for dim in array.dims if dim not in dims]
        values, found = array.transpose(*dims, *rest).values, {}
        for at in np.ndindex(*[array.sizes[dim] for dim in dims]):
            place = [array[dim].values[number] for dim, number in zip(dims, at, strict=True)]
            found[f"{f'{place[0]}.' if len(dims) == 3 else ''}L{place[-2]}H{place[-1]}"] = values[at]
        return found

    def effects(self, metric, of="effect"):
        """What each head that was ablated does, by prompt."""
        if (metric, of) not in self._known:
            found = self.heads_of(self.data[of].sel(metric=metric))
            self._known[metric, of] = {name: x.astype(float) for name, x in found.items() if np.isfinite(x).any()}
        return self._known[metric, of]

    def ranked(self, metric):
        """Heads and their mean effects, the largest first."""
        means = {head: float(values.mean()) for head, values in self.effects(metric).items()}
        return dict(sorted(means.items(), key=lambda pair: -abs(pair[1])))

    def rows(self, metric, table="heads"):
        """The rows of a table by head."""
        key = metric, table, "rows"
        if key not in self._known:
            frame = getattr(self.run, table)
            found = {}
            for row in frame[frame["metric"] == metric].to_dict("records"):
                stack = f"{row['stack']}." if "stack" in row else ""
                found[f"{stack}L{row['layer']}H{row['head']}"] = row
            self._known[key] = found
        return self._known[key]

    def p_adjusted(self, metric):
        found = {head: float(row["p_adjusted"]) for head, row in self.rows(metric).items()}
        return {head: p for head, p in found.items() if np.isfinite(p)}

    def shown(self, metric):
        p = self.p_adjusted(metric)
        return {head for head in self.effects(metric) if not p or p.get(head, 1) < self.level}

    def rule(self, metric):
        if not self.p_adjusted(metric):
            return "not tested"
        return f"max-T p < {self.level:g}" + " against random edits of the same size" * (metric in DISTANCES)

    def clean(self, metric):
        return self.data["clean"].sel(metric=metric).values.astype(float)

    def bar(self, metric):
        return self.share * abs(self.clean(metric).mean())

    def interval(self, values):
        """The mean of a number by prompt, with the interval of its clusters."""
        values = np.asarray(values, dtype=float)
        if values.tobytes() not in self._known:
            row = summarize(values[:, None, None], self.data["cluster"].values, **self.asked).iloc[0]
            self._known[values.tobytes()] = with_spread(values, row["ci_low"], row["ci_high"])
        return self._known[values.tobytes()]

    def estimate(self, metric, head):
        row = self.rows(metric)[head]
        return with_spread(self.effects(metric)[head], float(row["ci_low"]), float(row["ci_high"]))

    def told(self, text, about, unit=""):
        """A mean with its spread, in full."""
        if about.kind == "interval":
            match = re.fullmatch(
                rf"({PLAIN}|{SIGNED}){unit} \({self.percent} interval ({SIGNED}) to ({SIGNED})\)", text
            )
            for number, value in zip(match.groups(), (about.mean, about.low, about.high), strict=True):
                near(number, value)
            return
        if about.kind == "standard error":
            match = re.fullmatch(rf"({PLAIN}|{SIGNED}) ± (\S+){unit} \(standard error\)", text)
            near(match[2], about.high - about.mean, digits=2)
        else:
            match = re.fullmatch(rf"({PLAIN}|{SIGNED}){unit} \(one prompt, so no spread\)", text)
        near(match[1], about.mean)

    def brief(self, text, about):
        """A mean with its spread, in short."""
        numbers = re.findall(rf"{SIGNED}(?![\d.])", text.replace("± ", "±+"))
        if about.kind == "interval":
            assert len(numbers) == 3
            for number, value in zip(numbers, (about.mean, about.low, about.high), strict=True):
                near(number, value)
            return
        near(text.split(" ")[0], about.mean)
        assert ("±" in text) == (about.kind == "standard error")
        if "±" in text:
            near(text.partition("± ")[2], about.high - about.mean, digits=2)

    def briefs(self, text, about):
        """``a 1 (0 to 2), b 2 (1 to 3) and c …``: the names in order with their estimates."""
        found = items(text, rf"[\w.]+ {BRIEF}")
        assert [each.split(" ")[0] for each in found] == list(about)
        for each, estimate in zip(found, about.values(), strict=True):
            self.brief(each.partition(" ")[2], estimate)

    def patterns(self, prompt, stack=""):
        end = int(self.data["length"].values[prompt])
        pattern = self.data["pattern"].isel(prompt=prompt).transpose("layer", "head", "query", "key").values
        return pattern[:, :, :end, :end].astype(float)

    def name(self, key="model"):
        return str((self.spec.get(key) or {}).get("name"))

    def other(self):
        """What the other model is called."""
        mine, its = self.spec["model"], self.spec["compare"]["model"]
        if mine["name"] != its["name"]:
            return its["name"]
        more = [f"{key}={its[key]}" for key in its if its[key] != mine.get(key) and key not in ("weights", "sha256")]
        return f"{its['name']} ({', '.join(more)})" if more else f"{its['name']} again"


def with_spread(values, low, high):
    mean = float(np.mean(values))
    if np.isfinite([low, high]).all():
        return Interval(mean, low, high, "interval")
    if len(values) < 2:
        return Interval(mean)
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - error, mean + error, "standard error")


def spearman(a, b):
    a, b = pd.Series(a).rank(), pd.Series(b).rank()
    return float(np.corrcoef(a, b)[0, 1])


# --- heads ------------------------------------------------------------------------------------------------------


def on_side(saved, metric, word):
    """Heads whose mean effect is on a side, the largest first."""
    way = {"helps": 1, "hurts": -1, "matters": 1}[word] * HELPS.get(metric, 1)
    assert (word == "matters") == (metric not in HELPS)
    return {head: mean for head, mean in saved.ranked(metric).items() if mean * way > 1e-7}


@reads(
    "By <metric:word>, no head is shown to <verb:word> (<rule:any>); the largest such effect is <head:head>'s, "
    "<about:told>[[, max-T <p:chance>]][[; if that is what it does, about <n:int> such prompts would separate it from "
    "zero]]."
)
def no_head(saved, it):
    ranked = on_side(saved, it.metric, INFINITIVE[it.verb])
    assert not set(ranked) & saved.shown(it.metric)
    assert it.head == next(iter(ranked))
    assert it.rule == saved.rule(it.metric)
    assert it.rule != "not tested"
    saved.told(it.about, saved.estimate(it.metric, it.head), UNITS.get(it.metric, ""))
    assert it.p == written_p(saved.p_adjusted(it.metric)[it.head])
    values, cluster = saved.effects(it.metric)[it.head], saved.data["cluster"].values
    away = pd.Series(values - values.mean()).groupby(cluster).sum().to_numpy()
    n, groups = len(values), len(away)
    if groups < 2 or it.metric in DISTANCES:
        assert it.n is None
        return
    variance = (away**2).sum() * groups / (groups - 1) / n**2
    needed = np.ceil(max(n * variance * (1.959964 / values.mean()) ** 2, 6 * n / groups) - 1e-9)
    assert int(it.n or 0) == (needed if needed > n else 0)


@reads(
    "By <metric:word>, <head:head> <word:word> most[[ of the heads that are shown to have an effect (<rule:any>)]]: "
    "ablating it changes the mean by <about:told>[[, in the same direction on <same:int> of <n:prompts>]][[. Next: "
    "<others:briefs>]].[[ As large, but not shown: <larger:items>[[ and <more:int> more]].]]"
)
def strongest(saved, it):
    ranked, shown = on_side(saved, it.metric, it.word), saved.shown(it.metric)
    known = [head for head in ranked if head in shown][:3]
    assert it.head == known[0]
    assert (it.rule or "not tested") == saved.rule(it.metric)
    saved.told(it.about, saved.estimate(it.metric, it.head), UNITS.get(it.metric, ""))
    values = saved.effects(it.metric)[it.head]
    assert (it.same is None) == (it.metric not in HELPS)
    if it.same:
        assert int(it.same) == (np.sign(values) == np.sign(values.mean())).sum()
        counted(it.n, len(values), "prompt")
    assert bool(it.others) == (len(known) > 1)
    if it.others:
        saved.briefs(it.others, {head: saved.estimate(it.metric, head) for head in known[1:]})
    before = list(ranked)[: list(ranked).index(known[-1])]
    unsure = [head for head in before if head not in shown]
    named = re.findall(ITEM, it.larger or "")
    assert [each.split(" ")[0] for each in named] == unsure[:3]
    for each in named:
        head, mean, *p = re.fullmatch(rf"({HEAD}) ({SIGNED}), max-T ({CHANCE})", each).groups()
        near(mean, ranked[head])
        assert p == [written_p(saved.p_adjusted(it.metric)[head])]
    assert int(it.more or 0) == max(0, len(unsure) - 3)
    if named:
        assert it.larger == (", ".join(named) if it.more else listed(named))


@reads(
    "By <metric:word>, <sure:int> of <n:heads> <verb:word> shown to have an effect (max-T p < <level:real> against "
    "<null:any>, all heads taken together)[[ and <important:int> important (shown, all heads taken together, to be "
    "beyond ±<share:real> % of the clean value, ±<bar:size><unit:unit>)]]. Tested one by one, <alone:int> "
    "<have:word> p "
    "< <again:real>; if no head had an effect, at most <chance:real> would on average."
)
def counts(saved, it):
    p, rows = saved.p_adjusted(it.metric), saved.rows(it.metric)
    sure = {head for head in p if p[head] < saved.level}
    assert {head for head, row in rows.items() if str(row["significant"]) == "True"} == sure
    assert int(it.sure) == len(sure)
    counted(it.n, len(p), "head")
    assert set(p) == set(saved.effects(it.metric))
    assert it.verb == ("is" if len(sure) == 1 or len(p) == 1 else "are")
    assert float(it.level) == float(it.again) == saved.level
    assert it.null == ("random edits of the same size" if it.metric in DISTANCES else "chance")
    assert (it.important is None) == (it.metric in DISTANCES)
    if it.important is not None:
        bar = saved.bar(it.metric)
        beyond = [h for h, row in rows.items() if h in sure and (row["ci_low"] > bar or row["ci_high"] < -bar)]
        assert int(it.important) == sum(rows[head]["p_important"] < saved.level for head in beyond)
        near(it.share, 100 * saved.share)
        near(it.bar, bar)
        assert it.unit == UNITS.get(it.metric, "")
    alone = sum(row["p_value"] < saved.level for row in rows.values())
    assert int(it.alone) == alone
    assert it.have == ("has" if alone == 1 else "have")
    near(it.chance, saved.level * len(p), digits=2)


@reads(
    "<moved:int> of <n:heads> <verb:word> the mean <metric:word> by more than <share:real> % of its clean value "
    "(<bar:size><unit:unit>); none was tested against chance."
)
def movers(saved, it):
    means = np.array(list(saved.ranked(it.metric).values()))
    assert not saved.p_adjusted(it.metric)
    assert int(it.moved) == (np.abs(means) > saved.bar(it.metric)).sum()
    assert it.verb == ("moves" if it.moved == "1" else "move")
    counted(it.n, len(means), "head")
    near(it.share, 100 * saved.share)
    near(it.bar, saved.bar(it.metric))
    assert it.unit == UNITS.get(it.metric, "")


@reads(
    "Effects of single heads do not add up: of the <n:int> largest on <metric:word>, those that help sum to "
    "<total:size><unit:unit>, and the clean mean is <clean:size>."
)
def sums(saved, it):
    way, clean = HELPS[it.metric], saved.clean(it.metric).mean()
    helping = [abs(mean) for mean in list(saved.ranked(it.metric).values())[: int(it.n)] if mean * way > 0]
    assert it.n == "5"
    assert way == -1, "a loss has no end that it could add up to"
    assert sum(helping) > clean > 0
    near(it.total, sum(helping))
    near(it.clean, clean)
    assert it.unit == UNITS.get(it.metric, "")


@reads("Unablated, the mean <metric:word> is <about:mean>[[; <what:any> on <right:int> of <n:prompts>]].")
def clean(saved, it):
    values = saved.clean(it.metric)
    saved.told(it.about, saved.interval(values), UNITS.get(it.metric, ""))
    said = {"logit_diff": ("the right answer is preferred", 0), "accuracy": ("most scored tokens are right", 0.5)}
    assert (it.what is None) == (it.metric not in said)
    if it.what:
        what, above = said[it.metric]
        assert it.what == what
        assert int(it.right) == (values > above).sum()
        counted(it.n, len(values), "prompt")


@reads(
    "<a:word> and <b:word> order the heads by size of effect with a Spearman correlation of <rho:two>; both put "
    "<one:head> first.",
    "<a:word> and <b:word> order the heads by size of effect with a Spearman correlation of <rho:two>; <one:head> is "
    "first by <c:word>, <other:head> by <d:word>.",
)
def rankings(saved, it):
    first, second = saved.ranked(it.a), saved.ranked(it.b)
    two(it.rho, spearman([abs(first[head]) for head in first], [abs(second[head]) for head in first]))
    tops = [next(iter(first)), next(iter(second))]
    assert tops == [it.one, getattr(it, "other", it.one)]
    assert (getattr(it, "c", it.a), getattr(it, "d", it.b)) == (it.a, it.b)
    assert hasattr(it, "other") == (tops[0] != tops[1])


@reads(
    "With <n:clusters> of prompts nothing can be significant at the level <level:real>: a test that flips the signs of "
    "whole clusters needs <needed:int>."
)
def too_few(saved, it):
    counted(it.n, len(set(saved.data["cluster"].values.tolist())), "cluster")
    assert float(it.level) == saved.level
    n = int(it.needed)
    assert 2 / 2**n < saved.level <= 2 / 2 ** (n - 1)
    assert int(it.n.split(" ")[0]) < n


@reads("How far to trust p by <metrics:any>: <note:any>")
def trust(saved, it):
    size = pd.Series(saved.data["cluster"].values).value_counts().to_numpy()
    effective = size.sum() ** 2 / (size**2).sum()
    for metric in re.split(", | and ", it.metrics):
        notes = []
        have = f"{len(size)} cluster{'' if len(size) == 1 else 's'}"
        weighed = have if effective == len(size) else f"{have}, {effective:.1f} effective"
        draws = saved.asked["resamples"]
        n = len(saved.effects(metric))
        choices = saved.data.sizes["draw"] + 1 if metric in DISTANCES else 2

        def least_p(groups, ways=2 if metric not in DISTANCES else 1, choices=choices):
            return ways * float(choices) ** -groups

        smallest = least_p(len(size))
        if metric in DISTANCES or 2 ** len(size) > draws:
            smallest = max(smallest, 1 / (draws + 1))
        if len(size) < 6:
            notes.append(f"{have}: no interval can hold {saved.asked['confidence']:.0%} with fewer than 6.")
        if smallest >= saved.level:
            needed = next(k for k in range(1, 99) if least_p(k) < saved.level)
            what = f"a pick among {choices} edits" if metric in DISTANCES else "a sign flip"
            notes.append(
                f"{have}: p cannot go below {smallest:.2g}, so nothing can be significant at the level {saved.level}; "
                f"{what} needs {needed} clusters."
            )
        elif smallest * n >= saved.level:
            least = int(smallest * n / saved.level) + 1
            notes.append(
                f"{have}: p cannot go below {smallest:.2g}, so q over {n} heads falls below {saved.level} only where "
                f"at least {least} heads get there; p_adjusted has no such limit."
            )
        if metric in DISTANCES:
            pass
        elif int(effective) < 32:
            notes.append(f"{weighed}: with fewer than 32, p holds only if effects are about symmetric.")
        else:
            means = pd.DataFrame(saved.effects(metric)).groupby(saved.data["cluster"].values).mean().to_numpy()
            spread = means.std(axis=0)
            away = (means - means.mean(axis=0)) / np.where(spread > 0, spread, 1)
            skew = np.abs((away**3).mean(axis=0)).mean()
            assert skew**2 > 0.03 * (size**2).sum() ** 3 / (size**3).sum() ** 2
            notes.append(
                f"{weighed}, and effects are skewed (mean absolute skewness of cluster means {skew:.1f}): p may be too "
                f"small; that much skew needs {int(np.ceil(skew**2 / 0.03))} clusters of equal size."
            )
        assert it.note == " ".join(notes)


@reads(
    "By <metric:word>, <part:signed><unit:unit> of <head:head>'s <total:signed> is its direct effect; later layers "
    "add <rest:told>[[: self-repair of <share:int> %]]."
)
def direct(saved, it):
    total, part = (saved.effects(it.metric, of)[it.head] for of in ("effect", "direct"))
    means = {head: abs(values.mean()) for head, values in saved.effects(it.metric, "direct").items()}
    assert it.head in (next(iter(saved.ranked(it.metric))), max(means, key=means.get))
    assert it.head in saved.shown(it.metric)
    near(it.part, part.mean())
    near(it.total, total.mean())
    assert it.unit == UNITS.get(it.metric, "")
    rest = saved.interval(total - part)
    saved.told(it.rest, rest)
    against = rest.high < 0 if part.mean() > 0 else rest.low > 0
    assert (it.share is not None) == (against and abs(part.mean()) > abs(total.mean()) / 10)
    if it.share:
        assert int(it.share) == min(100, round(-100 * rest.mean / part.mean()))


@reads(
    "By <metric:word>, <head:head>'s <total:signed><unit:unit> is <part:signed> direct[[, <more:signed> that later "
    "components add (most by <adds:any>: <most:told>)]][[, <less:signed> that others take back (most by <takes:any>: "
    "<least:told>)]]."
)
def account(saved, it):
    """The parts of an effect by what later components write."""
    assert it.head in list(saved.ranked(it.metric))[:2]
    assert it.head in saved.shown(it.metric)
    values = saved.effects(it.metric, "account")[it.head]
    parts = dict(zip(saved.data["component"].values.astype(str), values.T, strict=True))
    total = saved.effects(it.metric)[it.head]
    np.testing.assert_allclose(sum(parts.values()), total, atol=1e-4)
    near(it.total, total.mean())
    assert it.unit == UNITS.get(it.metric, "")
    direct = parts.pop("direct").mean()
    near(it.part, direct)
    side = max(direct, total.mean(), key=abs)
    with_it = {name: each for name, each in parts.items() if each.mean() * side > 0}
    against = {name: each for name, each in parts.items() if each.mean() * side < 0}
    stated = ((with_it, it.more, it.adds, it.most), (against, it.less, it.takes, it.least))
    for some, amount, name, about in stated:
        assert bool(some) == (amount is not None)
        if some:
            near(amount, sum(each.mean() for each in some.values()))
            assert name == max(some, key=lambda name: abs(some[name].mean()))
            saved.told(about, saved.interval(some[name]))


@reads(
    "By <metric:word>, <about:told> of <head:head>'s direct effect, <whole:signed>, is read from <role:any> "
    "(<share:plain> %); from others: <others:any>."
)
def read_from(saved, it):
    """The parts of a direct effect by what its tokens are in their prompt set."""
    by_head = saved.effects(it.metric, "source_direct")
    by_key, role = by_head[it.head], saved.data["token_role"].values.astype(str)
    whole = by_key.sum(1)
    np.testing.assert_allclose(whole, saved.effects(it.metric, "direct")[it.head], atol=1e-4)
    rows = saved.rows(it.metric)
    important = [head for head in saved.shown(it.metric) if str(rows[head]["important"]) == "True"]
    sizes = {head: abs(by_head[head].sum(1).mean()) for head in important}
    assert it.head in sorted(sizes, key=lambda head: -sizes[head])[:2]
    assert sizes[it.head] > saved.bar(it.metric)
    parts = {name: np.where(role == name, by_key, 0).sum(1) for name in np.unique(role) if name}
    first, *rest = sorted(parts, key=lambda name: -abs(parts[name].mean()))
    assert it.role == ("other tokens" if first == "other" else f"the {first}")
    saved.told(it.about, saved.interval(parts[first]), UNITS.get(it.metric, ""))
    near(it.whole, whole.mean())
    near(it.share, 100 * parts[first].mean() / whole.mean())
    named = items(it.others, rf"(?:{'|'.join(parts)}) {SIGNED}(?![\d.])")
    assert [each.rpartition(" ")[0] for each in named] == rest
    for each in named:
        near(each.rpartition(" ")[2], parts[each.rpartition(" ")[0]].mean())


# --- head cards -------------------------------------------------------------------------------------------------


@reads(
    "Where the prediction is scored, <head:head> gives <about:mean> of its attention to <first:any>; elsewhere "
    "<other:plain>[[; then to <rest:any>]]."
)
def looks_at(saved, it):
    """The shares of attention by what a token is in its prompt set, at the scored positions and at others."""
    layer, head = map(int, re.findall(r"\d+", it.head))
    pattern, role = (
        saved.data["pattern"].sel(layer=layer, head=head).values,
        saved.data["token_role"].values.astype(str),
    )
    target, n = saved.data["target"].values.astype(bool), len(saved.data["prompt"])
    real = np.arange(target.shape[1]) < saved.data["length"].values[:, None]
    here, there = {}, {}
    for name in np.unique(role[role != ""]):
        share = [pattern[row][:, role[row] == name].sum(1) for row in range(n)]
        here[name] = np.array([share[row][target[row]].mean() for row in range(n)])
        there[name] = np.mean([share[row][real[row] & ~target[row]].mean() for row in range(n)])
    first, *rest = sorted(here, key=lambda name: -here[name].mean())
    named = {name: "other tokens" if name == "other" else f"the {name}" for name in here}
    assert it.first == named[first]
    saved.told(it.about, saved.interval(here[first]))
    near(it.other, there[first])
    rest = [name for name in rest[:3] if here[name].mean() >= 0.02]
    stated = (it.rest or "").split(", ") if it.rest else []
    assert [each.rpartition(" ")[0] for each in stated] == [named[name] for name in rest]
    for each, name in zip(stated, rest, strict=True):
        near(each.rpartition(" ")[2], here[name].mean())


@reads(
    "By <metric:word>, <head:head> matters most on prompt <most:int> (<large:signed><unit:unit>), where the last "
    "scored position looks most at “<token:any>” (<weight:plain>)[[, and least on prompt <least:int> "
    "(<small:signed><again:unit>), where the last scored position looks most at “<seen:any>” (<there:plain>)]]."
)
def matters_most(saved, it):
    """The prompts with the largest and the smallest effect, and the heaviest key of the last scored row there."""
    effect = saved.effects(it.metric)[it.head]
    assert it.metric == saved.metrics()[0]
    assert it.unit == UNITS.get(it.metric, "") == (it.again if it.least else it.unit)
    layer, head = map(int, re.findall(r"\d+", it.head))
    for number, said, seen, weight, extreme in (
        (it.most, it.large, it.token, it.weight, abs(effect).max()),
        (it.least, it.small, it.seen, it.there, abs(effect).min()),
    ):
        if number is None:
            assert abs(effect).min() == abs(effect).max()
            continue
        row = int(number)
        near(said, effect[row])
        assert abs(effect[row]) == extreme
        last = np.flatnonzero(saved.data["target"].values[row])[-1]
        pattern = saved.data["pattern"].isel(prompt=row).sel(layer=layer, head=head).values[last]
        near(weight, pattern.max())
        assert seen == str(saved.data["token"].values[row, pattern.argmax()]).strip()


@reads(
    "By weights alone, in scores over that of random matrices, <head:head> [[reads <reads:any>]][[; it ]]"
    "[[is read by <read_by:any>]].",
    "By weights alone, <head:head> composes with no other head beyond chance: the largest score is <largest:plain> "
    "times that of random matrices.",
)
def composes(saved, it):
    """The strongest partner by each input where it is beyond chance."""
    data, found = saved.data.sel(card=it.head), {}
    random = data["composition"].attrs["random"]
    ratio, chance = data["composition"] / random, data["composition_chance"] / random
    for way, how in (("is fed by", "its"), ("feeds", "that head's")):
        texts = []
        for circuit, name in zip("qkv", ("query", "key", "value"), strict=True):
            at = {"way": way, "circuit": circuit}
            if str(data["composed_head"].sel(at)[0].values) and ratio.sel(at)[0] > chance.sel(at):
                texts.append(
                    (f"{data['composed_head'].sel(at)[0].values} by {how} {name}", ratio.sel(at)[0], chance.sel(at))
                )
        found[way] = texts
    if hasattr(it, "largest"):
        assert not found["is fed by"] + found["feeds"]
        return near(it.largest, float(np.nanmax(ratio)))
    for said, texts in ((it.reads, found["is fed by"]), (it.read_by, found["feeds"])):
        listed_ = re.findall(
            rf"({HEAD} by (?:its|that head's) \w+) \(({SIZE}); by chance at most ({SIZE})\)", said or ""
        )
        assert [name for name, *_ in listed_] == [name for name, *_ in texts]
        assert (said or "") == listed([f"{name} ({a}; by chance at most {b})" for name, a, b in listed_])
        for (_, a, b), (_, score, bound) in zip(listed_, texts, strict=True):
            near(a, float(score))
            near(b, float(bound))


@reads(
    "By weights alone, <head:head>'s OV circuit <verb:word> the tokens that it attends to (copying score "
    "<score:plain>, from −1 to 1); its first singular direction holds <share:plain> % of it."
)
def copies(saved, it):
    score = float(saved.data["ov_copying"].sel(card=it.head))
    near(it.score, score)
    assert it.verb == ("raises" if score > 0 else "lowers")
    squares = saved.data["ov_singular"].sel(card=it.head).values.astype(float) ** 2
    near(it.share, 100 * squares.max() / squares.sum())


@reads("Direct effects are not given for this model: <reason:any>.")
def no_direct(saved, it):
    assert "direct" not in saved.data
    assert it.reason == saved.data["effect"].attrs["no_direct"]


# --- heads together ---------------------------------------------------------------------------------------------


@reads(
    "By <metric:word>, with <name:any> <done:word> together the mean changes by <about:told>[[; <k:int> random "
    "<set:word> of as many heads change it by <median:signed> (median; <low:signed> to <high:signed>), <p:chance>]].",
    "By <metric:word>, with <name:any> <done:word> and all other heads ablated the mean changes by <about:told>[[; the "
    "whole interval is <within:any> ±<share:real> % of the clean value: <verdict:any>]][[; "
    "<k:int> random <set:word> of as many heads change it by <median:signed> (median; <low:signed> to "
    "<high:signed>), <p:chance>]].",
)
def sets(saved, it):
    known = (saved.spec.get("sets") or {}).items()
    full = {f"{name} ({listed(heads)})" if 0 < len(heads) < 5 else name: name for name, heads in known}
    effect = saved.data["set_effect"].sel(metric=it.metric, set=full[it.name]).values.astype(float)
    about = saved.interval(effect)
    saved.told(it.about, about, UNITS.get(it.metric, ""))
    kept = saved.data["set_effect"].attrs["together"].endswith("kept")
    assert it.done == ("kept" if kept else "ablated")
    bar = saved.bar(it.metric)
    if kept and bar and about.kind == "interval":
        enough = about.low >= -bar and about.high <= bar
        assert it.within == ("within" if enough else "not within")
        assert it.verdict == ("the set is enough" if enough else "that the set is enough is not shown")
        near(it.share, 100 * saved.share)
    else:
        assert getattr(it, "verdict", None) is None
    if "random_set_effect" in saved.data:
        drawn = saved.data["random_set_effect"].sel(metric=it.metric, set=full[it.name]).transpose("draw", "prompt")
        as_drawn(it, effect, drawn.values.astype(float).mean(axis=1))


def as_drawn(it, effect, drawn):
    """What a sentence says about random sets, from the mean of each."""
    assert int(it.k) == len(drawn)
    assert it.set == ("set" if len(drawn) == 1 else "sets")
    for text, value in ((it.median, np.median(drawn)), (it.low, drawn.min()), (it.high, drawn.max())):
        near(text, value)
    assert it.p == written_p((1 + (np.abs(drawn) >= abs(effect.mean())).sum()) / (1 + len(drawn)))


BY = {
    "in order of their single effects": "effect",
    "in order of their estimates": "estimate",
    "greedily, measured again after each": "greedy",
}


def curve(saved, metric, order):
    return saved.data["cumulative_effect"].sel(metric=metric, order=order).transpose("prompt", "step").values


def beyond(saved, metric, bar):
    """How many heads it takes to get beyond the bar, for each order; and that the bar is the one in words."""
    orders = [str(name) for name in saved.data["order"].values]
    means = {name: np.abs(curve(saved, metric, name).astype(float).mean(axis=0)) for name in orders}
    share = re.fullmatch(r"±([\d.]+) % of its clean value", bar)
    if share:
        near(share[1], 100 * saved.share)
        limit = saved.bar(metric)
    else:
        limit = max(map(max, means.values())) / 2
        near(re.fullmatch(rf"half of the largest change of all orders \(±({SIZE})\)", bar)[1], limit)
    return {name: next((n + 1 for n, size in enumerate(sizes) if size > limit), None) for name, sizes in means.items()}


def random_orders(saved, steps, said):
    """The random orders, and how many heads each takes."""
    drawn = [n for name, n in steps.items() if name.startswith("random")]
    there, most = [n for n in drawn if n], saved.data.sizes["step"]
    if not drawn:
        assert said is None
        return
    many = f"{len(drawn)} random order{'' if len(drawn) == 1 else 's'}"
    if not there:
        assert said == f"none of {many} gets there within {most} head{'' if most == 1 else 's'}"
        return
    span = f"{min(there)} to {max(there)}" if min(there) < max(there) else f"{there[0]}"
    late = f", the others not within {most}" if len(there) < len(drawn) else ""
    assert said == f"of {many} {len(there)} {'gets' if len(there) == 1 else 'get'} there with {span}{late}"


def some(names):
    return listed(names) if len(names) <= 4 else ", ".join(names[:4]) + ", …"


@reads(
    "By <metric:word>, ablated <by:any> (the most needed first), <n:heads> (<heads:any>) <take:word> the mean beyond "
    "<bar:any>: <about:told>[[; <random:any>]]."
)
def taken(saved, it):
    steps, order = beyond(saved, it.metric, it.bar), BY[it.by]
    assert saved.data["cumulative_effect"].attrs["first"] == "most_needed"
    assert it.metric == saved.metrics()[0]
    n = steps[order]
    counted(it.n, n, "head")
    assert it.take == ("takes" if n == 1 else "take")
    assert it.heads == some([str(name) for name in saved.data["cumulative_head"].sel(order=order).values[:n]])
    saved.told(it.about, saved.interval(curve(saved, it.metric, order)[:, n - 1]), UNITS.get(it.metric, ""))
    random_orders(saved, steps, it.random)


@reads(
    "By <metric:word>, ablated <by:any> (the least needed first), <n:heads>[[ (<heads:any>)]] can go before the mean "
    "is "
    "beyond <bar:any>; <last:head> with them changes it by <about:told>[[; <random:any>]].",
    "By <metric:word>, ablated <by:any> (the least needed first), <n:heads>[[ (<heads:any>)]] can go before the mean "
    "is "
    "beyond <bar:any>; all that were tried change it by <about:told>[[; <random:any>]].",
)
def spared(saved, it):
    steps, order = beyond(saved, it.metric, it.bar), BY[it.by]
    assert saved.data["cumulative_effect"].attrs["first"] == "least_needed"
    most = saved.data.sizes["step"]
    names = [str(name) for name in saved.data["cumulative_head"].sel(order=order).values]
    n = steps[order] - 1 if steps[order] else most
    counted(it.n, n, "head")
    assert it.heads == (some(names[:n]) if n else None)
    assert hasattr(it, "last") == bool(steps[order])
    assert getattr(it, "last", None) == (names[n] if steps[order] else None)
    at = n if steps[order] else most - 1
    saved.told(it.about, saved.interval(curve(saved, it.metric, order)[:, at]), UNITS.get(it.metric, ""))
    random_orders(saved, steps, it.random)


WORDS_OF = {"q": "query", "k": "key", "v": "value", "pattern": "pattern"}


def by_activation(saved, metric):
    """Effects by prompt of each activation and head, the largest mean first."""
    effects = saved.data["activation_effect"].sel(metric=metric)
    found = {
        (str(of), head): values.astype(float)
        for of in effects["activation"].values
        for head, values in saved.heads_of(effects.sel(activation=of)).items()
    }
    return dict(sorted(found.items(), key=lambda pair: -abs(pair[1].mean())))


@reads(
    "By <metric:word>, replacing the <of:word> of <head:head> alone changes the mean by <about:told>, <share:two> of "
    "what replacing its z does[[; <rest:any>]]."
)
def carried(saved, it):
    assert it.head in list(saved.ranked(it.metric))[:3]
    whole = saved.effects(it.metric)[it.head].mean()
    mine = {of: each for (of, head), each in by_activation(saved, it.metric).items() if head == it.head}
    first = next(iter(mine))
    assert it.of == WORDS_OF[first]
    saved.told(it.about, saved.interval(mine[first]), UNITS.get(it.metric, ""))
    two(it.share, mine[first].mean() / whole)
    rest = [f"the {WORDS_OF[of]} {{}}" for of in list(mine)[1:]]
    shares = re.findall(TWO, it.rest or "")
    assert (it.rest or "") == listed(rest).format(*shares)
    for share, of in zip(shares, list(mine)[1:], strict=True):
        two(share, mine[of].mean() / whole)


@reads(
    "By <metric:word>, of the <ofs:any> of each head alone, the <of:word> of <head:head> does most: replacing it "
    "changes the mean by <about:told>[[, max-T <p:chance>]]."
)
def strongest_activation(saved, it):
    every = by_activation(saved, it.metric)
    (of, head), values = next(iter(every.items()))
    assert it.ofs == listed([WORDS_OF[str(name)] for name in saved.data["activation"].values])
    assert (it.of, it.head) == (WORDS_OF[of], head)
    saved.told(it.about, saved.interval(values), UNITS.get(it.metric, ""))
    table = summarize(np.stack(list(every.values()), axis=1)[:, :, None], saved.data["cluster"].values, **saved.asked)
    assert it.p == written_p(table["p_adjusted"][0])


INPUT = r"(?:the (?:query|key|value) of )?"
EDGE = rf"L\d+H\d+ into {INPUT}L\d+(?:H\d+|\.mlp) {BRIEF}(?:, max-T {CHANCE})?"
KINDS["edges"] = rf"{EDGE}(?:(?:, | and ){EDGE})*"


@reads(
    "By <metric:word>[[ (<kind:any>)]], the strongest <verb:any> <edges:edges>; <shown:int> of <n:int> measured "
    "<noun:any> <are:word> shown (max-T p < <level:real>), on <over:any>.",
    "By <metric:word>[[ (<kind:any>)]], the strongest <verb:any> <edges:edges>, on <over:any>; <n:int> <noun:any> were "
    "measured, none was tested.",
)
def edges(saved, it):
    data = saved.data.sel(metric=it.metric)
    tests = data["edge_half"].values != "choose"
    effect = data["edge_effect"].values[tests].astype(float)
    mean, n = effect.mean(axis=0), effect.shape[1]
    distance = it.metric in DISTANCES
    table = summarize(effect[:, :, None], data["cluster"].values[tests], **saved.asked, distance=distance)
    words = {"q": "the query of ", "k": "the key of ", "v": "the value of ", "mlp": "", "qkv": ""}
    parts = re.findall(EDGE, it.edges)
    assert listed(parts) == it.edges
    for part, at in zip(parts, np.argsort(-np.abs(mean), kind="stable"), strict=False):
        into = words[str(data["into"].values[at])]
        start = f"{data['sender'].values[at]} into {into}{data['receiver'].values[at]} "
        assert part.startswith(start)
        about, _, p = part.removeprefix(start).partition(", max-T ")
        near(about.partition(" ")[0], mean[at])
        low, high = re.findall(SIGNED, about.partition("(")[2])
        near(low, table["ci_low"][at])
        near(high, table["ci_high"][at])
        assert p == ("" if distance else written_p(table["p_adjusted"][at]))
    assert int(it.n) == n
    n_shown = (table["p_adjusted"] < saved.level).sum()
    assert it.verb == ("edges are" if len(parts) > 1 else "edge is")
    assert it.kind == (f"{saved.percent} intervals" if np.isfinite(table["ci_low"]).all() else None)
    assert it.noun == f"edge{'s' * int(n > 1)}"
    if not distance:
        assert int(it.shown) == n_shown
        assert it.are == ("is" if n_shown == 1 else "are")
        assert float(it.level) == saved.level
    chosen = "" if tests.all() else " that did not choose them"
    both = ", by which they were chosen too" if (data["edge_half"].values == "both").all() else ""
    prompts = f"{tests.sum()} prompt{'s' * int(tests.sum() > 1)}"
    assert it.over == (f"{prompts}{chosen}" if chosen else f"all {prompts}{both}")


@reads(
    "By <metric:word>, <a:head> and <b:head> ablated together do <joint:signed><unit:unit>, one by one "
    "<alone:signed> in "
    "sum: <about:told> beyond it[[, max-T <p:chance>; <meaning:any>. <sure:int> of <n:pairs> <verb:word> from the sum "
    "beyond chance (max-T p < <level:real>)]]."
)
def pairs(saved, it):
    data = saved.data.sel(metric=it.metric)
    difference = data["pair_difference"].transpose("prompt", "pair").values.astype(float)
    names = list(zip(data["head_a"].values.astype(str), data["head_b"].values.astype(str), strict=True))
    table = summarize(difference[:, :, None], saved.data["cluster"].values, **saved.asked)
    p, size = table["p_adjusted"].to_numpy(), np.abs(difference.mean(axis=0))
    sure = p < saved.level if it.metric not in DISTANCES else np.zeros(len(p), bool)
    at = names.index((it.a, it.b))
    assert size[at] == pytest.approx(size[sure].max() if sure.any() else size.max(), rel=1e-5)
    assert sure[at] or not sure.any()
    joint, alone = (float(data[name].isel(pair=at).mean()) for name in ("pair_effect", "pair_sum"))
    near(it.joint, joint)
    near(it.alone, alone)
    assert it.unit == UNITS.get(it.metric, "")
    single = saved.effects(it.metric) if "effect" in saved.data else {}
    if {it.a, it.b} <= set(single):
        near(it.alone, single[it.a].mean() + single[it.b].mean())
    saved.told(it.about, saved.interval(difference[:, at]), UNITS.get(it.metric, ""))
    assert (it.p is None) == (it.metric in DISTANCES)
    if it.p:
        assert it.p == written_p(p[at])
        more = "they back each other up"
        less = "their effects overlap, or one works through the other"
        assert it.meaning == ("this may be chance" if not sure.any() else more if abs(joint) > abs(alone) else less)
        assert int(it.sure) == sure.sum()
        assert it.verb == ("differs" if sure.sum() == 1 else "differ")
        counted(it.n, len(p), "pair")
        assert float(it.level) == saved.level


# --- what is looked at ------------------------------------------------------------------------------------------


def rolled(saved, prompt):
    """Rollout by its equation: half of each layer's mean pattern and half of the residual stream."""
    pattern = saved.patterns(prompt).mean(axis=1)
    found = np.eye(pattern.shape[-1])
    for layer in pattern:
        found = (layer + np.eye(len(layer))) / 2 @ found
    if "rollout" in saved.data:
        end = len(found)
        np.testing.assert_allclose(saved.data["rollout"].values[prompt, :end, :end], found, atol=2e-3)
    return found


def what_stands_there(saved, prompt, key, query):
    row = saved.data.isel(prompt=prompt)
    tokens = [str(token).strip() for token in row["token"].values]
    if key == 0:
        return "the first token"
    for name, role in (("answer", "right"), ("distractor", "wrong")):
        if name in row and tokens[key] and tokens[key] == str(row[name].values).strip():
            nth = tokens[: key + 1].count(tokens[key])
            order = {1: "first", 2: "second", 3: "third"}.get(nth, f"{nth}th")
            return f"the {role} answer’s token" + f" (its {order} occurrence)" * (tokens.count(tokens[key]) > 1)
    return {query: "that position itself", query - 1: "the token before it"}.get(key, f"“{tokens[key]}”")


@reads(
    "From the last scored position, attention rollout looks most at <a:any> on <na:int> of <n:prompts> (mean weight "
    "<wa:two>), and <head:head> (largest effect on <metric:word>) at <b:any> on <nb:int> of <m:prompts> (mean weight "
    "<wb:two>). They look most at the same token on <same:int> of <all:int>."
)
def looking(saved, it):
    assert it.metric == saved.metrics()[0]
    assert it.head == next(iter(saved.ranked(it.metric)))
    layer, head = map(int, re.fullmatch(r"L(\d+)H(\d+)", it.head).groups())
    target = saved.data["target"].values
    scored = [prompt for prompt in range(len(target)) if target[prompt].any()]
    ends = [int(np.flatnonzero(target[prompt])[-1]) for prompt in scored]
    tops = []
    for what, times, weight, rows in (
        (it.a, it.na, it.wa, [rolled(saved, prompt)[end] for prompt, end in zip(scored, ends, strict=True)]),
        (it.b, it.nb, it.wb, [saved.patterns(p)[layer, head, end] for p, end in zip(scored, ends, strict=True)]),
    ):
        top = [int(row.argmax()) for row in rows]
        kinds = [what_stands_there(saved, *each) for each in zip(scored, top, ends, strict=True)]
        assert Counter(kinds)[what] == max(Counter(kinds).values()) == int(times)
        two(weight, np.mean([row.max() for row, kind in zip(rows, kinds, strict=True) if kind == what]))
        tops.append(top)
    counted(it.n, len(scored), "prompt")
    counted(it.m, len(scored), "prompt")
    assert int(it.same) == sum(a == b for a, b in zip(*tops, strict=True))
    assert int(it.all) == len(scored)


MAPPED = {"residual stream": "resid_effect", "attention": "attn_effect", "MLP": "mlp_effect"}


def cells_of(saved, variable, metric):
    """The effects [prompt] of each cell of a map that every prompt has, by row and the words for its column."""
    effect = saved.data[variable].sel(metric=metric).transpose("prompt", ..., "position").values.astype(float)
    length, target = saved.data["length"].values, saved.data["target"].values
    role = saved.data["token_role"].values.astype(object) if "token_role" in saved.data else target * ""
    found = {}
    for row in range(effect.shape[1]):
        if len({*length.tolist()}) == 1:
            tokens = [saved.run.token_labels(prompt) for prompt in range(len(length))]
            for at in range(length[0]):
                names = {labels[at] for labels in tokens}
                roles = {
                    "scored" if role[p, at] == "other" and target[p, at] else role[p, at] for p in range(len(role))
                }
                label = names.pop() if len(names) == 1 else (len(roles) == 1 and roles.pop()) or f"token {at}"
                found[row, f"at position {at} (“{label.strip()}”)"] = effect[:, row, at]
            continue
        words = {"the scored position": (role == "other") & target, "other tokens": (role == "other") & ~target}
        words |= {f"the {name}": role == name for name in {*role.ravel()} - {"", "other"}}
        for name, where in words.items():
            if where.any(axis=1).all():
                values = [effect[prompt, row][where[prompt]].mean() for prompt in range(len(length))]
                found[row, f"at {name}"] = np.array(values)
    return found


@reads(
    "By <metric:word>, <done:word> the <name:any> does most <row:any> <column:any>: the mean changes by "
    "<about:told>[[, max-T <p:chance> over all cells]][[; from 0, the corrupted run, to 1, the clean one, the mean is "
    "then at <scale:plain>]]."
)
def patching_maps(saved, it):
    assert it.metric == saved.metrics()[0]
    variable = MAPPED[it.name]
    cells = cells_of(saved, variable, it.metric)
    means = {place: values.mean() for place, values in cells.items()}
    best = max(means, key=lambda place: abs(means[place]))
    n_rows = max(row for row, _ in cells) + 1
    said = f"{it.row} {it.column}"
    at, column = said.index(" at "), best[1]
    before = "before" if variable == "resid_effect" else "in"
    ends = variable == "resid_effect" and best[0] == n_rows - 1
    assert said[:at] == ("after the last layer" if ends else f"{before} L{best[0]}")
    assert said[at + 1 :] == column
    saved.told(it.about, saved.interval(cells[best]), UNITS.get(it.metric, ""))
    assert it.done == ("patching" if "corrupted" in saved.data else "ablating")
    ordered = sorted(cells, key=lambda place: place[0])
    table = summarize(
        np.stack([cells[place] for place in ordered], axis=1)[:, :, None], saved.data["cluster"].values, **saved.asked
    )
    p = float(table["p_adjusted"].iloc[ordered.index(best)])
    assert getattr(it, "p", None) == (written_p(p) if np.isfinite(p) and it.metric not in DISTANCES else None)
    assert bool(it.scale) == ("corrupted" in saved.data)
    if it.scale:
        patched = saved.data[variable].attrs["into"]
        clean, corrupted = (saved.data[name].sel(metric=it.metric).values.mean() for name in ("clean", "corrupted"))
        base = clean if patched == "clean" else corrupted
        near(it.scale, (base + means[best] - corrupted) / (clean - corrupted))


KINDS["done"] = "patched|ablated"


@reads(
    "With the <part:any> <done:done> <place:any> at <at:any>, the model has another most likely token on <n:int> of "
    "<of:prompts>[[, most often “<before:any>” to “<after:any>” (<alike:int>)]]."
)
def said_next(saved, it):
    data, name = saved.data, {"residual stream": "resid", "attention": "attn", "MLP": "mlp"}[it.part]
    said, own = data[f"{name}_next_token"].values, data["next_token"].values
    cells = cells_of(saved, f"{name}_effect", saved.metrics()[0])
    row, column = max(cells, key=lambda place: abs(cells[place].mean()))
    before = "before" if name == "resid" else "in"
    ends = name == "resid" and row == max(row for row, _ in cells)
    assert it.place == ("after the last layer" if ends else f"{before} L{row}")
    assert f"at {it.at}" == column
    if at := re.match(r"position (\d+) ", it.at):
        where = np.arange(said.shape[-1]) == int(at[1])
        where = np.tile(where, (len(own), 1))
    else:
        role = data["token_role"].values.astype(object)
        role = np.where((role == "other") & data["target"].values, "the scored position", role)
        where = role == {"other tokens": "other"}.get(
            it.at, it.at.removeprefix("the ") if "scored" not in it.at else it.at
        )
    pairs = []
    for prompt, places in enumerate(where):
        others = [new for new in said[prompt, row][places] if new != own[prompt]]
        pairs += [(own[prompt], others[0])] if others else []
    counted(it.of, len(own), "prompt")
    assert int(it.n) == len(pairs)
    assert it.done == ("patched" if "corrupted" in data else "ablated")
    assert bool(it.alike) == bool(pairs)
    if pairs:
        assert int(it.alike) == max(Counter(pairs).values()) == Counter(pairs)[it.before, it.after]


@reads("The maps of <n:prompts> are not averaged: the prompts differ in length, and their tokens have no roles.")
def not_averaged(saved, it):
    counted(it.n, saved.data.sizes["prompt"], "prompt")
    assert len({*saved.data["length"].values.tolist()}) > 1
    assert "token_role" not in saved.data


@reads("<name:word> is left out: <reason:any>.")
def left_out(saved, it):
    assert json.loads(saved.data["attribution"].attrs["left_out"])[it.name] == it.reason
    assert it.name not in saved.data["attribution_method"].values
    assert not it.name.startswith("occlude_")


def agreeing(saved, method, cause, policy):
    """Spearman's correlation of a method with a cause by prompt, the mean over its targets; as the run has it too."""
    data = saved.data
    scores = data["attribution"].sel({"attribution_method": method}).values.astype(float)
    effects = data["cause"].sel(cause_kind=cause).values.astype(float)
    counts, found = data["counted"].sel(policy=policy).values.astype(bool), []
    for prompt in range(len(scores)):
        known = counts[prompt] & np.isfinite(scores[prompt]) & np.isfinite(effects[prompt])
        each = [
            spearman(scores[prompt, at, row], effects[prompt, at, row]) for at, row in enumerate(known) if row.any()
        ]
        each = [rho for rho in each if np.isfinite(rho)]
        found.append(np.mean(each) if each else np.nan)
    chosen = {"statistic": "spearman", "policy": policy, "cause_kind": cause, "attribution_method": method}
    np.testing.assert_allclose(data["agreement"].sel(chosen).values, found, atol=1e-5)
    return np.array(found)


CAUSES = {
    "knockout": "attention knockout",
    "delete": "deleting a token",
    "occlude_mean": "putting the mean embedding in a token’s place",
    "occlude_mask": "putting a mask token in a token’s place",
}
METHODS = {"rollout": "attention rollout", "attention_mean": "mean attention", "random": "a random order"}
OVER = {
    "drop": "over {}s that are neither special, nor first, nor where the prediction is made",
    "keep": "over all {}s that the target can attend to",
}


@reads(
    "<first:word> agrees best with the measured cause (<cause:any>): Spearman <about:any>, <over:any>"
    "[[; <others:any>]][[. <differ:int> of <n:int> <noun:any> from a random order (q < "
    "<level:real>)]].",
    "<first:word> agrees best with the measured cause (<cause:any>): Spearman <about:any>, <over:any>"
    "[[; <others:any>]]. Whether that is beyond chance takes at least <needed:int> clusters of "
    "prompts, here are <clusters:int>.",
)
def nearest(saved, it):
    cause, policies = str(saved.data["cause_kind"].values[0]), list(saved.data["policy"].values)
    policy = "drop" if "drop" in policies else str(policies[0])
    assert it.cause == CAUSES[cause]
    assert it.over == OVER[policy].format(saved.spec["attribution"].get("level", "token"))
    table = saved.run.methods.query("statistic == 'spearman' and policy == @policy and cause == @cause")
    means = {
        str(name): np.nanmean(agreeing(saved, name, cause, policy)) for name in saved.data["attribution_method"].values
    }
    rows = {row["method"]: row for row in table.to_dict("records") if np.isfinite(row["mean"])}

    def told(text, name, words=""):
        row = rows[name]
        assert row["mean"] == pytest.approx(means[name], abs=1e-6)
        numbers = re.fullmatch(rf"({TWO})(?: \({words}({TWO}) to ({TWO})\))?", text).groups()
        for number, value in zip(numbers, (means[name], row["ci_low"], row["ci_high"]), strict=True):
            assert (number is None) == (not np.isfinite(value))
            if number:
                two(number, value)

    assert means[it.first] == max(mean for name, mean in means.items() if name != "random" and name in rows)
    told(it.about, it.first, f"{saved.percent} interval ")
    order = sorted((name for name in METHODS if name in rows and name != it.first), key=lambda name: -means[name])
    found = re.findall(rf"([a-z ]+) ({TWO}(?: \({TWO} to {TWO}\))?)", it.others or "")
    assert [name for name, _ in found] == [
        METHODS[name] if not at else f" {METHODS[name]}" for at, name in enumerate(order)
    ]
    for name, (_, text) in zip(order, found, strict=True):
        told(text, name)
    tested = [row["q_value"] for name, row in rows.items() if name != "random" and np.isfinite(row["q_value"])]
    clusters = len(set(saved.data["cluster"].values.tolist()))
    if hasattr(it, "needed"):
        assert tested
        assert 2 / 2 ** int(it.needed) < saved.level <= 4 / 2 ** int(it.needed)
        assert int(it.clusters) == clusters < int(it.needed)
        return
    assert (it.differ is not None) == bool(tested)
    if it.differ:
        assert int(it.differ) == sum(q < saved.level for q in tested)
        assert int(it.n) == len(tested)
        assert it.noun == (f"method{'' if it.n == '1' else 's'} differ{'s' if it.differ == '1' else ''}")
        assert float(it.level) == saved.level


# --- parts of prompts -------------------------------------------------------------------------------------------

APART = ("question", "answer", "special", "other")
TAKEN = {"delete": "it is removed", "knockout": "attention to it is knocked out"}


def by_part(saved, measure):
    """The mean of a measure for each part that is asked about, the largest first: over the prompts that have it."""
    data = saved.data
    cause = data["part_cause"].transpose("prompt", "traced", "taken", "part")
    if measure in cause["taken"].values:
        values = cause.sel(taken=measure).values
    elif measure == "attention":
        values = data["part_attention"].mean(["layer", "head"]).transpose("prompt", "traced", "part").values
    else:
        values = data[f"part_{measure}"].transpose("prompt", "traced", "part").values.astype(float)
        if measure == "gradient":
            values = values / np.nansum(values, axis=2, keepdims=True)
    found = {}
    for at, name in enumerate(data["part"].values):
        rows = [row[np.isfinite(row)] for row in values[:, :, at]]
        rows = [row for row in rows if len(row)]
        if rows and str(name) not in APART:
            several = len(set(data["cluster"].values.tolist())) > 1
            found[str(name)] = float(np.mean([row.mean() for row in rows] if several else np.concatenate(rows)))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def part_row(saved, measure, part):
    row = saved.run.parts.query("measure == @measure and part == @part").iloc[0]
    mean = by_part(saved, measure)[part]
    assert row["mean"] == pytest.approx(mean, rel=1e-4, abs=1e-9)
    return row, Interval(
        mean, row["ci_low"], row["ci_high"], "interval" if np.isfinite(row["ci_low"]) else "one prompt"
    )


def check_used(saved, it):
    cause = str(saved.data["taken"].values[-1])
    means = by_part(saved, cause)
    assert it.taken == TAKEN[cause]
    assert it.part == next(iter(means))
    about = part_row(saved, cause, it.part)[1]
    assert hasattr(it, "n") == bool(about.low > 0)
    if hasattr(it, "n"):
        counted(it.n, len(means), "part")
    vector = "nats" not in saved.data["traced_value"].attrs["units"]
    assert it.what == ("the distance of the vector" if vector else "the loss")
    saved.told(it.about.replace(" nats per token", ""), about)
    assert (" nats per token" in it.about) != vector
    several = len(set(saved.data["cluster"].values.tolist())) > 1
    has = np.isfinite(saved.data["part_cause"].sel(taken=cause, part=it.part)).any("traced").values.sum()
    assert it.over == (f"{has} prompt{'' if has == 1 else 's'}" if several else "scored tokens")
    others = list(means)[1:4]
    assert bool(it.others) == bool(others)
    if others:
        saved.briefs(it.others, {name: part_row(saved, cause, name)[1] for name in others})


USED = (
    "Of <n:parts> the prediction used <part:word> most: when <taken:any>, <what:any> changes by <about:any>, over "
    "<over:over>[[. Next: <others:briefly>]].",
    "No part is shown to be used; the largest cause is <part:word>’s: when <taken:any>, <what:any> changes by "
    "<about:any>, over <over:over>[[. Next: <others:briefly>]].",
)


@reads(*USED)
def used(saved, it):
    check_used(saved, it)


GUESSES = {
    "attention": "attention (mean over layers and heads)",
    "rollout": "rollout",
    "gradient": "the gradient's norm",
}


@reads(
    "<said:any>: all agree with the measured cause, which puts <part:word> first.",
    "<said:any>: <n:int> of <all:int> <verb:word> with the measured cause, which puts <part:word> first.",
)
def guesses(saved, it):
    assert it.part == next(iter(by_part(saved, str(saved.data["taken"].values[-1]))))
    text = it.said[0].lower() + it.said[1:]
    found, other = [], 0
    for measure, words in GUESSES.items():
        if measure == "gradient" and "part_gradient" not in saved.data:
            continue
        first, mean = next(iter(by_part(saved, measure).items()))
        number = re.search(rf"{re.escape(words)} puts {first} first \(({SIZE}) of all\)", text)
        near(number[1], mean)
        found.append(number[0])
        other += first != it.part
    assert text == listed(found)
    assert int(getattr(it, "n", 0)) == other
    assert int(getattr(it, "all", len(found))) == len(found)
    assert getattr(it, "verb", None) == (None if not other else "disagrees" if other == 1 else "disagree")


@reads(
    "<part:word> comes most through <head:head>: attention knockout of <again:word> in this head alone costs "
    "<about:told>, max-T <p:chance>[[ (<chance:any>)]][[. Next: <others:briefs>]]."
)
def carriers(saved, it):
    assert it.part == it.again
    cause = saved.data["part_head_cause"].sel(part=it.part).transpose("prompt", "traced", "layer", "head")
    there = np.isfinite(cause.values).any(axis=(1, 2, 3))
    by_prompt = cause[there].mean("traced").values.astype(float)
    cluster = saved.data["cluster"].values[there]
    means = {f"L{layer}H{head}": by_prompt[:, layer, head] for layer, head in np.ndindex(*by_prompt.shape[1:])}
    means = {head: x for head, x in means.items() if np.isfinite(x).all()}
    if len(set(cluster.tolist())) == 1:
        flat = cause.values[there].reshape(-1, *by_prompt.shape[1:])
        flat = flat[np.isfinite(flat).any(axis=(1, 2))].astype(float)
        means, cluster = {head: flat[:, int(head[1]), int(head[3])] for head in means}, np.arange(len(flat))
    table = summarize(np.stack(list(means.values()), 1)[:, :, None], cluster, **saved.asked)
    rows = dict(zip(means, table.to_dict("records"), strict=True))
    order = sorted(rows, key=lambda head: -rows[head]["effect_mean"])
    order = [head for head in order if rows[head]["effect_mean"] > 0][:3]
    assert it.head == order[0]

    def about(head):
        row = rows[head]
        known = "interval" if np.isfinite(row["ci_low"]) else "one prompt"
        return Interval(row["effect_mean"], row["ci_low"], row["ci_high"], known)

    saved.told(it.about, about(it.head), " nats" if "nats" in saved.data["traced_value"].attrs["units"] else "")
    assert it.p == written_p(rows[it.head]["p_adjusted"])
    assert it.chance == (None if rows[it.head]["p_adjusted"] < saved.level else "it may be chance")
    if it.others or order[1:]:
        saved.briefs(it.others, {head: about(head) for head in order[1:]})


# --- published values, quick sweeps -----------------------------------------------------------------------------


def of_spec(saved, source, **wanted):
    """The published value of this source."""
    (found,) = [each for each in saved.spec["published"] if each["source"] == source]
    assert {key: found[key] for key in wanted} == wanted
    return found


@reads(
    "Published: <what:word> <metric:word>[[ of <head:head>]] <value:plain> (<source:any>)[[. Here: <here:plain>, "
    "<same:any> "
    "within <tolerance:real>]].",
    "Published: <what:word> <metric:word>[[ of <head:head>]] <value:plain> (<source:any>); this run did not measure "
    "it.",
)
def published_value(saved, it):
    said = of_spec(saved, it.source, what=it.what, metric=it.metric, head=it.head)
    near(it.value, said["value"])
    array = saved.data[it.what].sel(metric=it.metric) if it.metric in saved.data["metric"].values else None
    if not hasattr(it, "here"):
        assert array is None
        return
    here = float((saved.heads_of(array)[it.head] if it.head else array.values).astype(float).mean())
    near(it.here, here)
    assert it.same == ("the same" if abs(here - said["value"]) <= said["tolerance"] else "not the same")
    near(it.tolerance, said["tolerance"])


@reads(
    "Published: <head:head> is a <role:word> head (<source:any>). Here: <here:any>.",
    "Published: <head:head> is a <role:word> head (<source:any>); this run scored no roles.",
)
def published_role(saved, it):
    of_spec(saved, it.source, what="role", head=it.head, role=it.role)
    assert hasattr(it, "here") == ("role_given" in saved.data)
    if hasattr(it, "here"):
        roles = has_roles(saved)[it.head]
        assert it.here == ("the same" if it.role in roles else listed(roles) or "no role")


@reads("sweep.method=fast was not used: <remark:any>.")
def remark(saved, it):
    assert saved.spec["sweep"]["method"] == "fast"
    assert "fast_effect" not in saved.data
    assert it.remark == saved.data["effect"].attrs["remark"]


def estimates(saved, metric):
    return {head: float(x.mean()) for head, x in saved.effects(metric, "estimate").items()}


def all_heads(saved, metric):
    return float((saved.data["all_ablated"] - saved.data["clean"]).sel(metric=metric).mean())


@reads(
    "By <metric:word>, the screen is blind here: the absolute estimates of all heads sum to <total:size><unit:unit>, "
    "and ablating all heads together changes it by <together:plain><again:unit>. Heads that were not measured may have "
    "large effects; set sweep.method=exact."
)
def blind(saved, it):
    total, together = sum(map(abs, estimates(saved, it.metric).values())), all_heads(saved, it.metric)
    near(it.total, total)
    near(it.together, together)
    assert it.unit == it.again == UNITS.get(it.metric, "")
    assert total < abs(together) / 10


@reads(
    "By <metric:word>, <n:heads> were screened by attribution patching (first-order estimates) and the <k:int> with "
    "the largest estimates ablated[[; estimate and effect order these by size with a Spearman correlation of "
    "<rho:two>]]. The others have only an estimate."
)
def screened(saved, it):
    guess, exact = estimates(saved, it.metric), saved.ranked(it.metric)
    assert sum(map(abs, guess.values())) >= abs(all_heads(saved, it.metric)) / 10
    counted(it.n, len(guess), "head")
    assert int(it.k) == len(exact)
    two(it.rho, spearman([abs(exact[head]) for head in exact], [abs(guess[head]) for head in exact]))
    if len(saved.metrics()) == 1:
        assert set(exact) == set(sorted(guess, key=lambda head: -abs(guess[head]))[: len(exact)])


@reads(
    "By <metric:word>, <n:heads> were swept in bf16 and <k:int> again exactly. On the <m:int> of these that were "
    "drawn at random the error of bf16 is <rms:size><unit:unit> (root mean square of mean effects; with <sure:int>% "
    "confidence at most <high:size> over all heads, and at least <within:int> % of them are off by no more than "
    "<largest:size>)[[; both "
    "order "
    "these by size with a Spearman correlation of <rho:two>]][[ (<low:two> to <top:two>)]]."
)
def in_bf16(saved, it):
    from scipy.stats import chi2, norm

    quick_, exact = saved.effects(it.metric, "fast_effect"), saved.effects(it.metric)
    known = [head for head, there in saved.heads_of(saved.data["exact"]).items() if there]
    counted(it.n, len(quick_), "head")
    assert int(it.k) == len(known)
    m = int(it.m)
    off = {head: abs(float((quick_[head] - exact[head]).mean())) for head in known}
    sample = [heads for heads in combinations(known, m) if matches(it, [off[head] for head in heads])]
    assert sample, "no sample of the verified heads has these errors"
    # Several samples may have the same errors to three digits; the bound tells them apart no better than that.
    rms = {heads: np.sqrt(np.mean([off[head] ** 2 for head in heads])) for heads in sample}
    bound = {heads: rms[heads] * np.sqrt(m / chi2.ppf(0.05, m)) for heads in sample}
    sample = [heads for heads in sample if value_of(it.high) == pytest.approx(bound[heads], rel=6e-3)]
    assert sample, (it.high, bound.values())
    assert it.unit == UNITS.get(it.metric, "")
    assert it.sure == "95"
    assert int(it.within) == round(100 * 0.05 ** (1 / m))
    rhos = [spearman(*([abs(x[head].mean()) for head in heads] for x in (exact, quick_))) for heads in sample]
    rho = min(rhos, key=lambda each: abs(each - value_of(it.rho)))
    two(it.rho, rho)
    z = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (m - 3))
    middle = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9))
    two(it.low, np.tanh(middle - z))
    two(it.top, np.tanh(middle + z))


def matches(it, errors):
    rms = np.sqrt(np.mean(np.square(errors)))
    pairs = ((value_of(it.rms), rms), (value_of(it.largest), max(errors)))
    return all(a == pytest.approx(b, rel=1e-2, abs=1e-9) for a, b in pairs)


# --- roles ------------------------------------------------------------------------------------------------------

DOES = {
    "previous_token": "looks at the token before",
    "near_uniform": "spreads its attention about evenly, as untrained heads do too",
    "induction": "looks at the token after an earlier place of the same token",
    "copying": "raises the token that it looks at",
    "duplicate_token": "looks at other places of the same token",
    "first_token": "looks at the first token (a sink)",
    "special_token": "looks at special tokens (a sink)",
    "positional": "looks at one fixed offset in nearly all rows",
    "diagonal": "looks at the token itself and two on either side",
    "next_token": "looks at the token after",
    "same_token": "looks at the token itself",
    "rare_word": "looks at the rarest token",
}


def has_roles(saved, of=""):
    """The roles of each head."""
    if ("roles", of) not in saved._known:
        given = saved.heads_of(saved.data[f"{of}role_given"].transpose("role", ...))
        names = saved.data["role"].values.astype(str)
        found = {head: [str(name) for name in names[np.asarray(row, bool)]] for head, row in given.items()}
        saved._known["roles", of] = found
    return saved._known["roles", of]


def role_heads(saved, role):
    """The heads that have a role, the highest score first."""
    score = saved.heads_of(saved.data["role_score"].sel(role=role))
    return sorted((head for head, names in has_roles(saved).items() if role in names), key=lambda head: -score[head])


@reads(
    "Role <role:word> (<does:any>): <k:int> of <n:heads>. <head:head> scores <score:plain>[[ (<spread:any>)]], by "
    "chance "
    "<chance:plain>, max-T <p:chance>[[; then <then:any>]]."
)
def role(saved, it):
    heads, row = role_heads(saved, it.role), saved.data.sel(role=it.role)
    assert it.does == DOES.get(it.role, f"looks from one word of {it.role.removeprefix('syntactic_')} to the other")
    assert int(it.k) == len(heads)
    known = {head: x for head, x in saved.heads_of(row["role_score"]).items() if np.isfinite(x)}
    counted(it.n, len(known), "head")
    assert it.head == heads[0]
    at = {name: float(saved.heads_of(row[f"role_{name}"])[it.head]) for name in ("score", "low", "high", "chance", "p")}
    near(it.score, at["score"])
    near(it.chance, at["chance"])
    assert it.p == written_p(at["p"])
    assert at["p"] < saved.level
    assert (it.spread is not None) == np.isfinite([at["low"], at["high"]]).all()
    if it.spread:
        low, high = re.fullmatch(rf"{saved.percent} interval ({PLAIN}) to ({PLAIN})", it.spread).groups()
        near(low, at["low"])
        near(high, at["high"])
    names = listed(heads[1:4]) + " and others" * (len(heads) > 4)
    assert (it.then or "") == names


@reads(
    "By <metric:word>, ablating <what:any> changes the mean by <about:told>; <k:int> random <set:word> of <n:heads> "
    "change "
    "it by <median:signed> (median; <low:signed> to <high:signed>), <p:chance>."
)
def role_worth(saved, it):
    alone = re.fullmatch(r"the (\w+) head", it.what)
    many = re.fullmatch(r"all (\d+) (\w+) heads together", it.what)
    name = alone[1] if alone else many[2]
    heads = role_heads(saved, name)
    assert len(heads) == (1 if alone else int(many[1]))
    counted(it.n, len(heads), "head")
    assert it.metric == saved.metrics()[0]
    chosen = saved.data.sel(metric=it.metric, having=name)
    effect = chosen["role_effect"].values.astype(float)
    drawn = chosen["random_effect"].transpose("draw", "prompt").values.astype(float).mean(axis=1)
    saved.told(it.about, saved.interval(effect), UNITS.get(it.metric, ""))
    as_drawn(it, effect, drawn)


@reads("No head has one of <n:roles> beyond chance.")
def no_role(saved, it):
    assert not any(has_roles(saved).values())
    counted(it.n, saved.data.sizes["role"], "role")


# --- two models -------------------------------------------------------------------------------------------------


@reads("Unablated, <metric:word> is exactly the same on each of <n:prompts>.")
def same_predictions(saved, it):
    base, other = (saved.data[name].sel(metric=it.metric).values for name in ("clean", "other_clean"))
    np.testing.assert_array_equal(base, other)
    counted(it.n, len(base), "prompt")


@reads(
    "Unablated, the mean <metric:word> is <a:plain> in <base:any> and <b:plain> in <other:any>: <about:told>, up on "
    "<up:int> and down on <down:int> of <n:prompts>; most on prompt <at:int>, <most:signed>."
)
def predictions(saved, it):
    base, other = (saved.data[name].sel(metric=it.metric).values.astype(float) for name in ("clean", "other_clean"))
    change = other - base
    near(it.a, base.mean())
    near(it.b, other.mean())
    assert (it.base, it.other) == (saved.name(), saved.other())
    saved.told(
        it.about, saved.interval(saved.data["clean_change"].sel(metric=it.metric).values), UNITS.get(it.metric, "")
    )
    np.testing.assert_allclose(saved.data["clean_change"].sel(metric=it.metric).values, change, atol=1e-6)
    assert (int(it.up), int(it.down)) == ((change > 0).sum(), (change < 0).sum())
    assert int(it.at) == np.abs(change).argmax()
    near(it.most, change[int(it.at)])
    counted(it.n, len(change), "prompt")


@reads("By <metric:word>, every head's effect is exactly the same.")
def same_effects(saved, it):
    for head, values in saved.effects(it.metric).items():
        np.testing.assert_array_equal(values, saved.effects(it.metric, "other_effect")[head])


@reads(
    "By <metric:word>, <head:head>'s effect changed most: from <a:signed> to <b:signed><unit:unit>, <about:signed>[[ "
    "(<spread:any>)]], max-T <p:chance>. <sure:int> of <n:heads> changed beyond chance (max-T p < <level:real>)."
)
def changed_effects(saved, it):
    assert it.metric == saved.metrics()[0]
    base, other = saved.effects(it.metric), saved.effects(it.metric, "other_effect")
    change = {head: float((other[head] - base[head]).mean()) for head in base}
    assert it.head == max(change, key=lambda head: abs(change[head]))
    near(it.a, base[it.head].mean())
    near(it.b, other[it.head].mean())
    near(it.about, change[it.head])
    assert it.unit == UNITS.get(it.metric, "")
    rows = saved.rows(it.metric, "changes")
    row = rows[it.head]
    assert (it.spread is not None) == np.isfinite(row["ci_low"])
    if it.spread:
        low, high = re.fullmatch(rf"{saved.percent} interval ({SIGNED}) to ({SIGNED})", it.spread).groups()
        near(low, row["ci_low"])
        near(high, row["ci_high"])
    assert it.p == written_p(row["p_adjusted"])
    assert int(it.sure) == sum(row["p_adjusted"] < saved.level for row in rows.values())
    counted(it.n, len(change), "head")
    assert float(it.level) == saved.level


@reads("Patterns are exactly the same in all <n:heads>.")
def same_patterns(saved, it):
    np.testing.assert_array_equal(saved.data["pattern"].values, saved.data["other_pattern"].values)
    counted(it.n, saved.data.sizes["layer"] * saved.data.sizes["head"], "head")


@reads(
    "Patterns are furthest apart in <head:head>: a Jensen–Shannon distance of <most:size> (standard deviation over "
    "prompts "
    "<sd:size>); the median head's is <median:size>. The first that differ are in layer <layer:int>; <same:int> of "
    "<n:heads> <look:word> exactly alike."
)
def patterns_apart(saved, it):
    distance = {head: x.astype(float) for head, x in saved.heads_of(saved.data["pattern_distance"]).items()}
    means = {head: x.mean() for head, x in distance.items()}
    assert it.head == max(means, key=means.get)
    near(it.most, means[it.head])
    near(it.sd, distance[it.head].std(ddof=1))
    near(it.median, np.median(list(means.values())))
    assert int(it.layer) == min(int(re.search(r"L(\d+)", head)[1]) for head in means if means[head] > 0)
    assert int(it.same) == sum(mean == 0 for mean in means.values())
    assert it.look == ("looks" if it.same == "1" else "look")
    counted(it.n, len(means), "head")
    layer, head = map(int, re.fullmatch(r"L(\d+)H(\d+)", it.head).groups())
    from scipy.spatial.distance import jensenshannon

    again = []
    for prompt, end in enumerate(saved.data["length"].values):
        a, b = (saved.data[name].values[prompt, layer, head, 1:end, :end] for name in ("pattern", "other_pattern"))
        again.append(np.mean([jensenshannon(p, q, base=2) for p, q in zip(a, b, strict=True)]))
    assert means[it.head] == pytest.approx(np.mean(again), rel=1e-3)


@reads("No head has other roles than before.")
def same_roles(saved, it):
    assert has_roles(saved) == has_roles(saved, "other_")


@reads("<n:heads> <have:word> other roles: <told:any>.")
def other_roles(saved, it):
    before, after = has_roles(saved), has_roles(saved, "other_")
    moved = [head for head in before if set(before[head]) != set(after[head])]
    counted(it.n, len(moved), "head")
    assert it.have == ("has" if len(moved) == 1 else "have")
    body, _, more = it.told.partition(", and ")
    assert more == (f"{len(moved) - 5} more" if len(moved) > 5 else "")
    told = body.split("; ")
    assert [each.split(" ")[0] for each in told] == moved[:5]
    for head, text in zip(moved, told, strict=False):
        gained, lost = sorted({*after[head]} - {*before[head]}), sorted({*before[head]} - {*after[head]})
        words = re.sub(r" \([^()]+ → [^()]+\)", "", text)
        parts = [f"{head} now is {listed(gained)}"] if gained else []
        parts += [f"{'' if gained else f'{head} '}no longer is {listed(lost)}"] if lost else []
        assert words == " and ".join(parts)
        scores = re.findall(rf"(\w+) \(({PLAIN}|not known) → ({PLAIN}|not known)\)", text)
        assert len(scores) == len(gained) + len(lost)
        for name, a, b in scores:
            for number, of in ((a, "role_score"), (b, "other_role_score")):
                value = float(saved.data[of].sel(role=name, layer=int(head[1]), head=int(head[3])))
                assert (number == "not known") == (not np.isfinite(value))
                if number != "not known":
                    near(number, value)


@reads("The parameters of all blocks are exactly the same.")
def same_weights(saved, it):
    assert (saved.data["weight_change"].values == 0).all()


@reads(
    "Parameters differ in block<s:any> only (by <most:size> of their length[[ in block <at:int>]]).",
    "Parameters differ in <k:int> of <n:blocks>, most in block <at:int> (by <most:size> of their length; median "
    "<median:size>).",
)
def weights(saved, it):
    change = saved.data["weight_change"].values.astype(float)
    where = [str(at) for at in np.flatnonzero(change)]
    near(it.most, change.max())
    if hasattr(it, "k"):
        assert int(it.k) == len(where)
        assert len(where) > 5 or len(where) == len(change)
        counted(it.n, len(change), "block")
        near(it.median, np.median(change))
    else:
        assert it.s == (f" {where[0]}" if len(where) == 1 else f"s {listed(where)}")
        assert len(where) < 6
    assert it.at is None or int(it.at) == change.argmax()
    assert (it.at is None) == (len(where) == 1 and not hasattr(it, "k"))


@reads(
    "<a:int> of <na:int> heads of <base:any> <verb:any> <role:word> head[[<s:s>]], and <b:int> of <nb:int> of "
    "<other:any>; "
    "their largest scores are <sa:any> and <sb:any>."
)
def by_role(saved, it):
    assert (it.base, it.other) == (saved.name(), saved.other())
    for k, n, largest, of in ((it.a, it.na, it.sa, ""), (it.b, it.nb, it.sb, "other_")):
        score = saved.data[f"{of}role_score"].sel(role=it.role).values
        assert int(k) == int(saved.data[f"{of}role_given"].sel(role=it.role).values.sum())
        assert int(n) == np.isfinite(score).sum()
        near(largest, np.nanmax(score))
    assert (it.verb, it.s) == (("is a", None) if it.a == "1" else ("are", "s"))


# --- questions --------------------------------------------------------------------------------------------------


def resting(saved, prompt):
    """Which tokens are the first or special."""
    rests = saved.data["special"].values[prompt, : int(saved.data["length"].values[prompt])].astype(bool)
    return rests | (np.arange(len(rests)) == 0)


def per_head(saved, measure):
    """[prompt, layer, head] of a measure of a prompt's patterns."""
    return np.stack([measure(prompt, saved.patterns(prompt)) for prompt in range(saved.data.sizes["prompt"])])


def by_word(saved, prompt, pattern):
    """Patterns summed over the tokens of the word that is looked at, and averaged over those of the word that looks."""
    word = saved.data["word"].values[prompt, : pattern.shape[-1]]
    member = word[None] == np.arange(word.max() + 1)[:, None]
    return np.einsum("aq,lhqk,bk->lhab", member / member.sum(axis=1, keepdims=True), pattern, member.astype(float))


def ordinary(pattern, left_out):
    """Patterns without some tokens, rows summing to 1 again."""
    kept = pattern[:, :, ~left_out][..., ~left_out]
    total = kept.sum(axis=-1, keepdims=True)
    return np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)


def extreme(saved, head, text, values, largest=True):
    """Whether the head has the largest (or smallest) mean over prompts, and that is the number."""
    mean = values.mean(axis=0)
    at = np.unravel_index(mean.argmax() if largest else mean.argmin(), mean.shape)
    assert head == f"L{at[0]}H{at[1]}"
    if text is not None:
        near(text, mean[at])


@reads(
    "Of the attention that other tokens give to a split word, its last piece gets <share:size> on average (<n:int> "
    "words), "
    "<about:told> beyond an even split (<even:size>). <most:head> favours the last piece most (<a:signed>), "
    "<least:head> "
    "least (<b:signed>)."
)
def subwords(saved, it):
    words, shares, even = 0, [], []
    for prompt in range(saved.data.sizes["prompt"]):
        pattern = saved.patterns(prompt)
        word, n = saved.data["word"].values[prompt, : pattern.shape[-1]], pattern.shape[-1]
        ahead, found = np.triu(pattern, 1).any(), []
        for number in set(word.tolist()):
            at = np.flatnonzero(word == number)
            others = [q for q in range(n) if q not in at and (ahead or q > at[-1])]
            if len(at) > 1 and at[0] > 0 and others:
                given = pattern[:, :, others][..., at].sum(axis=2)
                found.append((given[..., -1] / given.sum(axis=-1), 1 / len(at)))
        words += len(found)
        shares.append(np.mean([share for share, _ in found], axis=0))
        even.append(np.mean([part for _, part in found]))
    more = np.stack(shares) - np.array(even)[:, None, None]
    near(it.share, np.mean(shares))
    near(it.even, np.mean(even))
    assert int(it.n) == words
    saved.told(it.about, saved.interval(more.mean(axis=(1, 2))))
    extreme(saved, it.most, it.a, more)
    extreme(saved, it.least, it.b, more, largest=False)


@reads(
    "From <a:int> to <b:int> tokens the mean distance of attention grows by <about:mean> tokens for each token of "
    "length; "
    "even attention would by <even:plain>. Layer <l:int> grows most (<lm:plain>), layer <k:int> least (<km:plain>); "
    "<far:head> reaches farthest with the length (<fm:plain>), <close:head> stays nearest (<cm:plain>). The first "
    "token and "
    "special ones are left out."
)
def long_sentence(saved, it):
    length = saved.data["length"].values.astype(float)
    assert (int(it.a), int(it.b)) == (length.min(), length.max())

    def reach(prompt, pattern):
        rests = resting(saved, prompt)
        kept, at = ordinary(pattern, rests), np.flatnonzero(~rests)
        far = (kept * np.abs(at[:, None] - at)).sum(axis=-1)
        looks = kept.sum(axis=-1) > 0
        return (far * looks).sum(axis=-1) / looks.sum(axis=-1)

    def evenly(prompt, pattern):
        rows = np.tri(pattern.shape[-1]) if not np.triu(pattern, 1).any() else np.ones(pattern.shape[-2:])
        return reach(prompt, (rows / rows.sum(axis=1, keepdims=True))[None, None])

    def fitted(values):
        away = length - length.mean()
        slope, start = np.polyfit(length, values.reshape(len(length), -1), 1)
        left = values.reshape(len(length), -1) - slope * length[:, None] - start
        return (slope + len(length) * away[:, None] * left / (away**2).sum()).reshape(values.shape)

    slope = fitted(per_head(saved, reach))
    saved.told(it.about, saved.interval(slope.mean(axis=(1, 2))))
    near(it.even, fitted(per_head(saved, evenly)).mean())
    layers = slope.mean(axis=(0, 2))
    assert (int(it.l), int(it.k)) == (layers.argmax(), layers.argmin())
    near(it.lm, layers.max())
    near(it.km, layers.min())
    extreme(saved, it.far, it.fm, slope)
    extreme(saved, it.close, it.cm, slope, largest=False)


@reads(
    "Swapping words moves <about:mean> of a head's attention to another place (<n:pairs>). <head:head> changes most "
    "(<most:size>), layer <layer:int> more than the others (<lm:size>); <k:int> of <m:heads> <go:word> on "
    "position alone (at most 0.05 moves)."
)
def word_order(saved, it):
    cluster = saved.data["cluster"].values.astype(str)
    merged = [by_word(saved, prompt, saved.patterns(prompt)) for prompt in range(len(cluster))]
    moved = []
    for prompt, name in enumerate(cluster):
        (other,) = [at for at in np.flatnonzero(cluster == name) if at != prompt]
        moved.append(np.abs(merged[prompt] - merged[other])[:, :, 1:].sum(axis=-1).mean(axis=-1) / 2)
    moved = np.stack(moved)
    saved.told(it.about, saved.interval(moved.mean(axis=(1, 2))))
    counted(it.n, len(cluster) // 2, "pair")
    extreme(saved, it.head, it.most, moved)
    assert int(it.layer) == moved.mean(axis=(0, 2)).argmax()
    near(it.lm, moved.mean(axis=(0, 2)).max())
    assert int(it.k) == (moved.mean(axis=0) <= 0.05).sum()
    assert it.go == ("depends" if it.k == "1" else "depend")
    counted(it.m, moved[0].size, "head")


@reads(
    "<model:word> looks ahead with <about:mean> of its attention[[ (<head:head> most, <most:size>)]][[: it is "
    "<causal:word>]], back with <back:size>, at the token itself with <own:size>; <rest:size> rests on the first "
    "token and "
    "special ones."
)
def masked_vs_causal(saved, it):
    assert it.model == saved.name()
    ahead = per_head(saved, lambda prompt, pattern: np.triu(pattern, 1).sum(axis=-1).mean(axis=-1))
    back = per_head(saved, lambda prompt, pattern: np.tril(pattern, -1).sum(axis=-1).mean(axis=-1))
    own = per_head(saved, lambda prompt, pattern: np.diagonal(pattern, axis1=2, axis2=3).mean(axis=-1))
    saved.told(it.about, saved.interval(ahead.mean(axis=(1, 2))))
    assert (it.causal is None) == bool(ahead.any()) == (it.head is not None)
    if it.head:
        extreme(saved, it.head, it.most, ahead)
    assert it.causal in (None, "causal")
    near(it.back, back.mean())
    near(it.own, own.mean())
    rest = []
    for prompt in range(len(ahead)):
        rests = resting(saved, prompt)
        rest.append(saved.patterns(prompt)[:, :, ~rests][..., rests].sum(axis=-1).mean())
    near(it.rest, np.mean(rest))


@reads(
    "On <about:mean> of its rows a head looks most at another token than the mean over the heads of its layer does; "
    "<head:head> on <most:size>. On <hidden:mean> of the rows no head at all looks most where the mean does. The "
    "first token "
    "and special ones are left out."
)
def mean_vs_head(saved, it):
    def other(prompt, pattern):
        kept = ordinary(pattern, resting(saved, prompt))[:, :, 1:]
        return kept.argmax(axis=-1) != kept.mean(axis=1, keepdims=True).argmax(axis=-1)

    differs = [other(prompt, saved.patterns(prompt)) for prompt in range(saved.data.sizes["prompt"])]
    share = np.stack([each.mean(axis=-1) for each in differs])
    saved.told(it.about, saved.interval(share.mean(axis=(1, 2))))
    extreme(saved, it.head, it.most, share)
    saved.told(it.hidden, saved.interval([each.all(axis=1).mean() for each in differs]))


OVER_TOKENS = {"drop": "without special, first and predicting tokens", "keep": "over all tokens"}


@reads(
    "Rollout orders tokens like the measured cause (<cause:word>, <over:any>) with a Spearman correlation of "
    "<alone:mean>, "
    "<beats:any> the mean of attention does (difference <about:told>)."
)
def rollout(saved, it):
    policy = str(saved.data["policy"].values[-1])
    assert it.over == OVER_TOKENS[policy]
    assert it.cause == str(saved.data["cause_kind"].values[0])
    rolled, plain = (agreeing(saved, name, it.cause, policy) for name in ("rollout", "attention_mean"))
    saved.told(it.alone, saved.interval(rolled))
    about = saved.interval(rolled - plain)
    saved.told(it.about, about)
    assert it.beats == (
        "better than" if about.low > 0 else "worse than" if about.high < 0 else "not shown to be better than"
    )


@reads("Of <n:int> relations <sure:int> <have:word> a head that follows it beyond chance and distance. <rest:any>.")
def syntax(saved, it):
    names = [str(name) for name in saved.data["role"].values if str(name).startswith("syntactic_")]
    assert int(it.n) == len(names)
    given = {name: saved.data["role_given"].sel(role=name).values.any() for name in names}
    assert int(it.sure) == sum(given.values())
    assert it.have == ("has" if it.sure == "1" else "have")
    start = "How often the head that does so most looks at the right word: "
    assert it.rest.startswith(start)
    scores = {name: saved.heads_of(saved.data["role_score"].sel(role=name)) for name in names}
    best = {name: max(score, key=score.get) for name, score in scores.items()}
    order = sorted(names, key=lambda name: -scores[name][best[name]])
    told = it.rest.removeprefix(start).split("; ")
    for name, text in zip(order, told, strict=True):
        called, head, about, fixed = re.fullmatch(
            rf"(\w+) ({HEAD}) ({PLAIN}{SPREAD}), the best fixed distance ({PLAIN})", text
        ).groups()
        assert (f"syntactic_{called}", head) == (name, best[name])
        near(about.split(" ")[0], scores[name][head])
        near(fixed, float(saved.heads_of(saved.data["role_chance"].sel(role=name))[head]))
        saved.told(about, saved.interval(follows(saved, called, head)))


def follows(saved, name, head):
    """What each prompt adds to how often a head looks most at the right word, over all places where it can look, in
    the way of its score: the rate, and the prompt's influence on it (as of any ratio of sums)."""
    layer, number = map(int, re.fullmatch(r"L(\d+)H(\d+)", head).groups())
    found = []
    for prompt, text in enumerate(saved.data["relations"].values):
        pattern = saved.patterns(prompt)
        word = saved.data["word"].values[prompt, : pattern.shape[-1]]
        special = {int(word[at]) for at in np.flatnonzero(saved.data["special"].values[prompt, : len(word)])}
        merged, rates = by_word(saved, prompt, pattern)[layer, number], []
        for _, a, b in [each for each in json.loads(str(text)) if each[0] == name]:
            looks = []
            for query, key in ((b, a), (a, b)):
                allowed = [k for k in range(len(merged)) if k != query and k not in special]
                if not np.triu(pattern, 1).any():
                    allowed = [k for k in allowed if k < query]
                looks.append(float(max(allowed, key=lambda k: merged[query, k]) == key) if key in allowed else np.nan)
            rates.append(looks)
        rates = np.reshape(rates, (-1, 2))
        found.append([np.nansum(rates, axis=0), np.isfinite(rates).sum(axis=0)])
    hits, places = np.moveaxis(np.array(found), 1, 0)
    score = saved.heads_of(saved.data["role_score"].sel(role=f"syntactic_{name}"))[head]
    total = places.sum(axis=0)
    (way,) = [at for at in (0, 1) if total[at] and hits[:, at].sum() / total[at] == pytest.approx(score, abs=1e-6)][:1]
    rate = hits[:, way].sum() / total[way]
    return rate + len(hits) * (hits[:, way] - rate * places[:, way]) / total[way]


@reads(
    "At “<end:any>” <head:head> scores “<top:any>” <score:signed> before the softmax (the next best <second:signed>): "
    "<weight:size> of its attention, <written:size> of what it writes by the norms of weight times value. Over all "
    "prompts "
    "the first token's share changes by <about:told> from attention to what is written. The softmax of the scores is "
    "the "
    "pattern and weights times values are z, to <off:any>."
)
def qkv(saved, it):
    layer, head = map(int, re.fullmatch(r"L(\d+)H(\d+)", it.head).groups())
    assert it.head == saved.spec["show"]["heads"][0]
    group = head // (saved.data.sizes["head"] // saved.data.sizes["kv_head"])
    moved, off = [], 0.0
    for prompt, end in enumerate(saved.data["length"].values):
        row = saved.data.isel(prompt=prompt).sel(layer=layer)
        score = row["scores"].sel(head=head).values[end - 1, :end].astype(float)
        weight = row["pattern"].sel(head=head).values[end - 1, :end].astype(float)
        value = row["v"].sel(kv_head=group).transpose("position", ...).values[:end].astype(float)
        written = weight * np.sqrt((value**2).sum(axis=1))
        moved.append(written[0] / written.sum() - weight[0])
        power = np.exp(score - score.max())
        off = max(off, np.abs(power / power.sum() - weight).max())
        off = max(off, np.abs(weight @ value - row["z"].sel(head=head).values[end - 1]).max())
        if prompt == 0:
            token, top = [str(each) for each in row["token"].values[:end]], int(weight.argmax())
            for text, at in ((it.end, end - 1), (it.top, top)):
                word = row["word"].values
                place = at - int(np.flatnonzero(word == word[at])[0])  # of three bytes for each Japanese character
                spelled = str(row["word_text"].values[at - place]).strip()
                hidden = "\ufffd" in token[at]
                assert text == (f"{spelled[place // 3]} {place % 3 + 1}/3" if hidden else token[at].strip())
            near(it.score, score[top])
            near(it.second, sorted(score)[-2])
            near(it.weight, weight[top])
            near(it.written, written[top] / written.sum())
    saved.told(it.about, saved.interval(moved))
    assert it.off == f"{off:.0e}"


@reads(
    "The <first:word> meets <met:any>: the larger attention weight between the two, less the head's mean weight at "
    "that distance."
)
def layers(saved, it):
    tags = list(saved.spec["prompts"]["words"])
    assert it.first == tags[0]
    told = re.findall(rf"its (\w+) in layer (\d+) \(({HEAD}), ({SIGNED}{SPREAD})\)", it.met)
    assert [tag for tag, *_ in told] == tags[1:]
    assert listed(f"its {tag} in layer {layer} ({head}, {about})" for tag, layer, head, about in told) == it.met

    def met(prompt, pattern, tag):
        merged = by_word(saved, prompt, pattern)
        word, part = (saved.data[name].values[prompt] for name in ("word", "token_part"))
        ((a,), (b,)) = ({int(word[at]) for at in np.flatnonzero(part.astype(str) == name)} for name in (tags[0], tag))
        found = []
        for query, key in ((a, b), (b, a)):
            n = merged.shape[-1]
            same = [(q, q + key - query) for q in range(n) if 0 <= q + key - query < n and q != query]
            rest = sum(merged[:, :, q, k] for q, k in same) / max(len(same), 1)
            found.append(merged[:, :, query, key] - rest)
        return np.maximum(*found)

    for tag, layer, head, about in told:
        values = per_head(saved, lambda prompt, pattern, tag=tag: met(prompt, pattern, tag))
        extreme(saved, head, None, values)
        at = tuple(map(int, re.fullmatch(r"L(\d+)H(\d+)", head).groups()))
        assert int(layer) == at[0]
        saved.told(about, saved.interval(values[:, at[0], at[1]]))


@reads(
    "The first token gets <attention:mean> of the attention where something is predicted, <norms:size> of it "
    "weighted by the "
    "norms of values, and <cause:mean> of what taking tokens away does (<kind:word>). <k:int> of <n:heads> "
    "<give:word> it "
    "more than half (<head:head> most)."
)
def sinks(saved, it):
    def share(name, of, dim):
        strength = np.abs(saved.data[name].sel({dim: of}).values.astype(float))
        total = np.nansum(strength, axis=-1)
        real = (saved.data["explained"].values >= 0) & (total > 0)
        return np.nanmean(np.where(real, strength[..., 0] / np.where(real, total, 1), np.nan), axis=-1)

    assert it.kind == str(saved.data["cause_kind"].values[0])
    saved.told(it.attention, saved.interval(share("attribution", "attention_mean", "attribution_method")))
    near(it.norms, share("attribution", "norms", "attribution_method").mean())
    saved.told(it.cause, saved.interval(share("cause", it.kind, "cause_kind")))
    rests = per_head(saved, lambda prompt, pattern: pattern[:, :, 1:, 0].mean(axis=-1))
    extreme(saved, it.head, None, rests)
    assert int(it.k) == (rests.mean(axis=0) > 0.5).sum()
    assert it.give == ("gives" if it.k == "1" else "give")
    counted(it.n, rests[0].size, "head")


@reads(
    "<n:heads> <have:word> the induction role (<names:any>): ablating one of them changes "
    "<metric:word> by "
    "<mine:signed><unit:unit> on average, one of the others by <others:signed>: <about:told> apart.",
    "<which:word> head looks like induction beyond chance; <head:head> does most (<score:plain>).",
)
def induction(saved, it):
    heads, score = role_heads(saved, "induction"), saved.heads_of(saved.data["role_score"].sel(role="induction"))
    if hasattr(it, "which"):
        assert len(heads) == {"No": 0, "Every": len(score)}[it.which]
        assert it.head == max(score, key=score.get)
        near(it.score, score[it.head])
        return
    counted(it.n, len(heads), "head")
    assert it.have == ("has" if len(heads) == 1 else "have")
    assert it.names == listed(heads[:4]) + " and others" * (len(heads) > 4)
    assert it.metric == saved.metrics()[0]
    effects = saved.effects(it.metric)
    mine = np.mean([effects[head] for head in effects if head in heads], axis=0)
    others = np.mean([effects[head] for head in effects if head not in heads], axis=0)
    near(it.mine, mine.mean())
    near(it.others, others.mean())
    assert it.unit == UNITS[it.metric]
    saved.told(it.about, saved.interval(mine - others), UNITS[it.metric])


_TASK = (
    r"of (\d+ items?) of ([\w ]+?) (\d+) are right with all heads and (\d+) without them "
    rf"\(by chance ({PLAIN}); the share changes by ({SIGNED}{SPREAD})"
    rf"(?:, (\d+ random sets?) of as many heads by ({SIGNED}) to ({SIGNED}), ({CHANCE}))?\)"
)


@reads("Without <name:any>: <tasks:any>.")
def lost(saved, it):
    """A choice is right where its margin is above zero: that of the clean model from the log-probabilities of the
    completions, and that without heads by what they do to it."""
    data, prob = saved.data, saved.data["choice_log_prob"].values
    assert "tags" in data
    right = np.arange(prob.shape[1]) == data["right_choice"].values[:, None]
    there = data["choice_text"].values != ""
    margin = prob[right] - np.where(there & ~right, prob, -np.inf).max(axis=1)
    np.testing.assert_allclose(margin, saved.clean("choice_margin"), rtol=1e-4, atol=1e-5)

    def change(of):
        after = of.sel(metric="choice_margin").transpose("prompt", ...).values
        before = margin.reshape(-1, *[1] * (after.ndim - 1))
        return (before + after > 0).astype(float) - (before > 0)

    by_set = change(data["set_effect"])
    at = int(by_set.mean(axis=0).argmin())
    assert it.name == str(data["set"].values[at])
    task = data["tags"].sel(tag="task").values.astype(str)
    told = re.findall(_TASK, it.tasks)
    assert [each[1] for each in told] == list(dict.fromkeys(task))
    assert listed(match[0] for match in re.finditer(_TASK, it.tasks)) == it.tasks
    for n, name, before, after, by_chance, about, drawn, low, high, p in told:
        own = task == name
        lost_share = by_set[own, at]
        counted(n, own.sum(), "item")
        assert int(before) == (margin[own] > 0).sum()
        assert int(after) == int(before) + round(lost_share.sum())
        near(by_chance, (1 / there[own].sum(axis=1)).sum())
        row = summarize(lost_share[:, None, None], data["cluster"].values[own], **saved.asked).iloc[0]
        saved.told(about, with_spread(lost_share, row["ci_low"], row["ci_high"]))
        assert bool(drawn) == ("random_set_effect" in data)
        if drawn:
            random = change(data["random_set_effect"].sel(set=it.name))[own].mean(axis=0)
            counted(drawn, len(random), "random set")
            near(low, random.min())
            near(high, random.max())
            assert p == written_p((1 + (random <= lost_share.mean() + 1e-9).sum()) / (1 + len(random)))


@reads(
    "This is a quick look, not the study: <n:prompts>, and <screened:heads> screened by their gradients, of which "
    "<k:int> were ablated. <head:head> has the largest measured effect: without it <metric:word> changes by "
    "<about:told> of <clean:plain>."
)
def quick(saved, it):
    assert it.metric == saved.metrics()[0]
    exact = saved.ranked(it.metric)
    assert it.head == next(iter(exact))
    assert int(it.k) == len(exact)
    counted(it.screened, len(estimates(saved, it.metric)), "head")
    counted(it.n, saved.data.sizes["prompt"], "prompt")
    saved.told(it.about, saved.estimate(it.metric, it.head), UNITS[it.metric])
    near(it.clean, saved.clean(it.metric).mean())


@reads(
    "<head:head>: ablating it changes <metric:word> by <about:told> of <clean:plain>, on <same:int> of <n:int> "
    "prompts the same "
    "way. Where the answer is predicted it looks at the right name with <right:size> of its attention, at the wrong "
    "one with "
    "<wrong:size> (difference <gap:told>). No head looks at the right name more (<most:size>).",
    "<head:head>: ablating it changes <metric:word> by <about:told> of <clean:plain>, on <same:int> of <n:int> "
    "prompts the same "
    "way. Where the answer is predicted it looks at the right name with <right:size> of its attention, at the wrong "
    "one with "
    "<wrong:size> (difference <gap:told>). <reader:head> looks at the right name most (<most:size>): "
    "ablating it changes <again:word> by <its:brief>.",
)
def ioi(saved, it):
    assert it.metric == getattr(it, "again", it.metric) == saved.metrics()[0]
    assert it.head == next(iter(saved.ranked(it.metric)))
    saved.told(it.about, saved.estimate(it.metric, it.head), UNITS[it.metric])
    near(it.clean, saved.clean(it.metric).mean())
    values = saved.effects(it.metric)[it.head]
    assert int(it.same) == (np.sign(values) == np.sign(values.mean())).sum()
    assert int(it.n) == len(values)

    def on(name):
        def weight(prompt, pattern):
            said = str(saved.data[name].values[prompt]).strip()
            token = saved.data["token"].values[prompt, : pattern.shape[-1]]
            end = np.flatnonzero(saved.data["target"].values[prompt])[-1]
            return pattern[:, :, end][..., [str(each).strip() == said for each in token]].sum(axis=-1)

        return per_head(saved, weight)

    right, wrong = on("answer"), on("distractor")
    layer, head = map(int, re.fullmatch(r"L(\d+)H(\d+)", it.head).groups())
    near(it.right, right[:, layer, head].mean())
    near(it.wrong, wrong[:, layer, head].mean())
    saved.told(it.gap, saved.interval(right[:, layer, head] - wrong[:, layer, head]))
    extreme(saved, getattr(it, "reader", it.head), it.most, right)
    if hasattr(it, "reader"):
        assert it.reader != it.head
        saved.brief(it.its, saved.estimate(it.metric, it.reader))


@reads(
    "The <first:any> first (by <by:word>), [[<floor:any> ]]<about:mean> heads of the <n:int> that were tried can go "
    "before a "
    "prompt is worse by <bar:size><unit:unit> of <metric:word> (a tenth of the clean value); <all:int> of <m:prompts> "
    "<bear:word> all of them[[. In <k:int> random <orders:word> it is <random:size>: <gain:mean> more]]. The order "
    "was chosen "
    "by these same prompts; others may bear fewer."
)
def prune(saved, it):
    assert it.metric == saved.metrics()[0]
    bar = abs(saved.clean(it.metric).mean()) / 10
    near(it.bar, bar)
    assert it.unit == UNITS[it.metric]
    assert it.first == saved.data["cumulative_effect"].attrs["first"].replace("_", " ")

    def gone(order):
        worse = curve(saved, it.metric, order).astype(float) * HELPS[it.metric]
        return np.array([next((n for n, value in enumerate(row) if value > bar), len(row)) for row in worse], float)

    chosen = gone(it.by)
    saved.told(it.about, saved.interval(chosen))
    assert int(it.n) == saved.data.sizes["step"]
    ends = (chosen == saved.data.sizes["step"]).sum()
    assert int(it.all) == ends
    assert it.floor == ("at least" if ends else None)
    counted(it.m, len(chosen), "prompt")
    assert it.bear == ("bears" if ends == 1 else "bear")
    drawn = [gone(str(name)) for name in saved.data["order"].values if str(name).startswith("random")]
    assert int(it.k or 0) == len(drawn)
    if drawn:
        near(it.random, np.mean(drawn))
        saved.told(it.gain, saved.interval(chosen - np.mean(drawn, axis=0)))
        assert it.orders == ("order" if len(drawn) == 1 else "orders")


@reads(
    "Per token the prediction depends most on <sure:word> words: when <taken:any>, the prediction loses "
    "<about:told> per "
    "token; <others:briefly>. For each 1 % of the tokens attention gives <attention:any>.",
    "Per token no kind of word is shown to be used; the largest cause is that of <first:word> words: when "
    "<taken:any>, "
    "the prediction loses <about:told> per token; <others:briefly>. For each 1 % of the tokens attention gives "
    "<attention:any>.",
)
def bias(saved, it):
    data, cause = saved.data, str(saved.data["taken"].values[-1])
    assert it.taken == TAKEN[cause]
    tokens = data["part_tokens"].transpose("prompt", "part").values.astype(float)
    lost = data["part_cause"].sel(taken=cause).mean("traced").transpose("prompt", "part").values.astype(float)
    looked = data["part_attention"].mean(["traced", "layer", "head"]).transpose("prompt", "part").values.astype(float)
    about, attention = {}, {}
    for at, tag in enumerate(data["part"].values.astype(str)):
        there = tokens[:, at] > 0
        if tag in ("special", "question", "answer") or not there.any():
            continue
        values = lost[there, at] / tokens[there, at]
        about[str(tag)] = saved.interval(values) if there.all() else with_spread(values, np.nan, np.nan)
        attention[str(tag)] = np.mean(looked[there, at] / (tokens[there, at] / tokens[there].sum(axis=1)))
    order = sorted(about, key=lambda tag: -about[tag].mean)
    most = about[order[0]]
    assert getattr(it, "sure", None) or it.first == order[0]
    assert hasattr(it, "sure") == (most.kind == "interval" and most.low > 0)
    assert getattr(it, "sure", order[0]) == order[0]
    saved.told(it.about, most, " nats" if "nats" in data["traced_value"].attrs["units"] else "")
    saved.briefs(it.others, {tag: about[tag] for tag in order[1:]})
    found = items(it.attention, rf"\w+ {PLAIN} %")
    assert [each.split(" ")[0] for each in found] == order
    for tag, each in zip(order, found, strict=True):
        near(each.split(" ")[1], attention[tag])


@reads(
    "<used:any> Context by context the largest cause is most often <part:word>’s, in <k:int> of <n:int> contexts; "
    "attention "
    "puts the same part as the cause first in <m:int>."
)
def rag(saved, it):
    assert read(saved, it.used) == "used"
    data, cause = saved.data, str(saved.data["taken"].values[-1])
    names = [str(name) for name in data["part"].values if str(name) not in APART]
    lost = data["part_cause"].sel(taken=cause, part=names).mean("traced").transpose("prompt", "part").values
    looked = data["part_attention"].sel(part=names).mean(["layer", "head", "traced"]).transpose("prompt", "part").values
    first, seen = np.nanargmax(lost, axis=1), np.nanargmax(looked, axis=1)
    times = Counter(names[at] for at in first)
    assert times[it.part] == max(times.values()) == int(it.k)
    assert int(it.n) == len(first)
    assert int(it.m) == (first == seen).sum()


# --- runs -------------------------------------------------------------------------------------------------------

RANDOM = {"name": "random", "source": "random"}
PLANTED = {"name": "planted", "source": "planted"}
REPEATED = {"name": "induction", "n": 8, "length": 18}
ROLES = {"draws": 40, "n": 2, "length": 6}
TEXTS = [
    "The dog chased the cat across the yard.",
    "After the storm the harbour was full of boats.",
    "She read the letter twice.",
    "The bridge was closed.",
    "Nobody knew why.",
    "When the train arrived, the station was dark.",
]
CONTEXTS = [
    {
        "parts": [{"name": name, "text": text} for name, text in zip("abc", texts, strict=True)],
        "question": question,
        "answer": answer,
    }
    for texts, question, answer in (
        (("The dog sat by the door.", "A cat sat on the roof.", "The horse ran."), "Who sat by the door?", "dog"),
        (("The man sold a house.", "A woman bought the car.", "It rained."), "Who sold a house?", "man"),
        (("The queen wrote a letter.", "A king read the book.", "It snowed."), "Who wrote?", "queen"),
    )
]
PUBLISHED = [
    {"source": "A 2020", "what": "clean", "metric": "loss", "value": 7.35, "tolerance": 0.1},
    {"source": "B 2021", "what": "effect", "metric": "logit_diff", "head": "L1H3", "value": -2.5, "tolerance": 0.5},
    {"source": "C 2022", "what": "clean", "metric": "prob", "value": 0.5, "tolerance": 0.1},
    {"source": "D 2023", "what": "role", "head": "L2H2", "role": "near_uniform"},
    {"source": "E 2024", "what": "role", "head": "L2H2", "role": "induction"},
]
EVERY_METHOD = {"methods": ["attention_mean", "rollout", "norms", "random"], "causes": ["delete"], "targets": 1}
INLINE = {"name": "inline", "text": TEXTS}
UNEQUAL = {**INLINE, "text": TEXTS + TEXTS[:3], "cluster": list("aaabcdefg")}
INVERTED = {
    "name": "inline",
    "text": ["Cats the dog chased and a boy sold fish.", "She slept.", "Fish the boy sold.", "He sold fish."],
    "relations": ["obj(chased, Cats); obj(sold, fish)", "nsubj(slept, She)", "obj(sold, Fish)", "obj(sold, fish)"],
}
CURVES = {
    "kind": ["single", "layer", "mlp", "cumulative", "pairs", "set"],
    "max_heads": 3,
    "n_random_orders": 2,
    "pairs_top_k": 5,
}
CURVES |= {"order": ["effect", "greedy", "random"]}
MAPS = ["resid", "attn", "mlp"]
UNLIKE_LENGTHS = {"name": "inline", "text": TEXTS[2:5]}
SETS = {"both": ["L0H4", "L1H4"], "early": ["L0"]}
LEAST = {
    "kind": ["complement", "cumulative"],
    "order_from": "least_needed",
    "order": ["effect", "random"],
    "n_random_orders": 2,
}
BLIND = {"method": "screen", "verify_top_k": 3}
FAST = {"method": "fast", "verify_top_k": 1, "verify_fraction": 0.1}
SYLLABLES = {"name": "inline", "text": [" ba bo ki ba bo ki", " ki bo ba ki bo ba", " bo ki ba bo ki ba"]}

#: Each run: its runner and what differs from a study of random Llama on eight IOI prompts; and sentences that it must
#: make beside others.
RUNS = {
    "study": (
        "study",
        {"metrics": ["loss", "logit_diff", "kl", "accuracy"], "published": PUBLISHED},
        "no_head clean rankings published_value",
    ),
    "planted": (
        "study",
        {
            "model": PLANTED,
            "prompts": REPEATED,
            "metrics": ["loss", "kl"],
            "sweep": CURVES,
            "sets": SETS,
            "roles": ROLES,
        },
        "strongest direct sets taken pairs role looking",
    ),
    "least": (
        "ablate_heads",
        {"model": PLANTED, "prompts": REPEATED, "metrics": ["loss"], "sweep": LEAST, "sets": SETS, "n_random_sets": 3},
        "strongest sets spared trust",
    ),
    "harmful": (
        "ablate_heads",
        {"model": {**PLANTED, "variant": "harmful"}, "prompts": REPEATED, "metrics": ["loss", "prob", "accuracy"]},
        "strongest sums",
    ),
    "sources": (
        "ablate_heads",
        {
            "model": {**PLANTED, "variant": "soft"},
            "prompts": REPEATED,
            "metrics": ["logit"],
            "sweep": {"source_direct": True, "account": True},
        },
        "strongest direct read_from account",
    ),
    "maps": (
        "ablate_heads",
        {
            "prompts": {"name": "ioi", "n": 3},
            "ablation": {"name": "patch", "positions": "each"},
            "metrics": ["logit_diff"],
            "sweep": {"kind": MAPS},
        },
        "patching_maps said_next",
    ),
    "maps_of_one_length": (
        "ablate_heads",
        {
            "model": PLANTED,
            "prompts": {"name": "induction", "n": 4, "length": 6},
            "ablation": {"name": "mean", "positions": "each"},
            "metrics": ["loss"],
            "sweep": {"kind": MAPS},
        },
        "patching_maps said_next",
    ),
    "maps_apart": (
        "ablate_heads",
        {
            "ablation": {"name": "zero", "positions": "each"},
            "metrics": ["kl"],
            "sweep": {"kind": MAPS},
            "prompts": UNLIKE_LENGTHS,
        },
        "not_averaged",
    ),
    "compare": (
        "compare_models",
        {"compare": {"model": {**RANDOM, "seed": 1}}, "metrics": ["loss", "logit_diff"], "roles": ROLES},
        "predictions changed_effects patterns_apart other_roles weights",
    ),
    "again": (
        "compare_models",
        {"compare": {"model": RANDOM}, "metrics": ["loss"], "roles": ROLES, "prompts": {"name": "ioi", "n": 3}},
        "same_predictions same_effects same_patterns same_roles same_weights",
    ),
    "other_heads": (
        "compare_models",
        {"prompts": SYLLABLES, "compare": {"model": PLANTED}, "metrics": ["loss"], "roles": ROLES},
        "by_role",
    ),
    "roles": (
        "profile_heads",
        {"model": PLANTED, "prompts": REPEATED, "metrics": ["loss"], "roles": ROLES, "n_random_sets": 8},
        "role_worth",
    ),
    "trace": (
        "trace_context",
        {"prompts": {"name": "context", "contexts": CONTEXTS}, "trace": {"targets": 2, "heads": "every"}},
        "used guesses carriers",
    ),
    "one_context": (
        "trace_context",
        {"prompts": {"name": "context", "contexts": CONTEXTS[:1]}, "trace": {"causes": ["delete"], "gradient": False}},
        "used guesses",
    ),
    "encoder": (
        "study",
        {"model": {**RANDOM, "shape": "bert"}, "prompts": INLINE, "metrics": ["loss", "kl"]},
        "looking",
    ),
    "few": ("study", {"prompts": {"name": "ioi", "n": 3}}, "too_few no_head"),
    "one": ("study", {"prompts": {"name": "ioi", "n": 1}}, "too_few"),
    "unequal": (
        "study",
        {"prompts": UNEQUAL, "metrics": ["loss"], "attribution": EVERY_METHOD},
        "trust nearest",
    ),
    "few_edits": ("ablate_heads", {"metrics": ["kl"], "prompts": {"name": "ioi", "n": 3}}, "trust"),
    "fast": ("ablate_heads", {"metrics": ["loss", "logit_diff"], "sweep": FAST}, "in_bf16"),
    "slow": ("ablate_heads", {"metrics": ["loss"], "sweep": FAST, "prompts": {"name": "ioi", "n": 3}}, "remark"),
    "screen": (
        "ablate_heads",
        {"metrics": ["loss"], "sweep": {"method": "screen", "verify_top_k": 5}, "prompts": {"name": "ioi", "n": 12}},
        "screened counts",
    ),
    "blind": (
        "ablate_heads",
        {"model": PLANTED, "prompts": {**REPEATED, "n": 12}, "metrics": ["loss"], "sweep": BLIND},
        "blind",
    ),
    "pairs": ("ablate_heads", {"metrics": ["loss"], "sweep": {"kind": "pairs", "pairs": "all"}}, "pairs"),
    "edges": ("ablate_heads", {"metrics": ["loss", "kl"], "sweep": {"kind": "edges"}, "edges": {"top_k": 8}}, "edges"),
    "activations": (
        "ablate_heads",
        {"ablation": {"name": "patch", "of": ["z", "q", "k", "v", "pattern"]}, "metrics": ["logit_diff", "loss"]},
        "carried",
    ),
    "activations_alone": (
        "ablate_heads",
        {"ablation": {"name": "scale", "of": ["q", "v"]}, "metrics": ["loss"]},
        "strongest_activation",
    ),
    "many_roles": ("profile_heads", {"metrics": ["loss"], "roles": ROLES, "n_random_sets": 8}, "role_worth"),
    "syntax": (
        "profile_heads",
        {"prompts": INVERTED, "metrics": ["loss"], "roles": ROLES, "question": "syntax"},
        "syntax",
    ),
    "one_cluster": (
        "ablate_heads",
        {
            "prompts": {**INLINE, "cluster": ["text"] * 6},
            "metrics": ["loss"],
            "sweep": {"kind": ["single", "complement"]},
            "sets": {"early": ["L0"]},
        },
        "sets too_few",
    ),
    "one_head": ("ablate_heads", {"metrics": ["loss"], "heads": ["L1H1"]}, "no_head counts"),
    "t5": (
        "ablate_heads",
        {
            "model": {**RANDOM, "shape": "t5"},
            "prompts": {**INLINE, "target": [" a garden and a store"] * 6},
            "metrics": ["loss", "kl"],
        },
        "strongest trust",
    ),
}
#: What makes sentences that others make too.
ALIKE = ("t5", "one", "many_roles", "few", "pairs", "maps_of_one_length", "least", "unequal")
#: Whose sentences are long, or many.
LARGE = (
    "other_heads",
    "blind",
    "study",
    "planted",
    "encoder",
    "harmful",
    "roles",
    "slow",
    "one_context",
    "compare",
    "trace",
    "fast",
    *ALIKE,
)


def asked(**values):
    small = {"model": RANDOM, "prompts": {"name": "ioi", "n": 8}, "stats": {"resamples": 500}, "roles": ROLES}
    return parse(RunSpec, small | {"attribution": {"targets": 1}} | values)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run of a name, made once."""

    @cache
    def make(name):
        runner, values, _ = RUNS[name]
        place = study.Place(str(tmp_path_factory.mktemp(name)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fast, "speedup", lambda model: 1.0 if name == "slow" else 9.0)
            return Saved(harness.open_run(study.run(runner, asked(**values), place, lambda *_: None)))

    return make


def changed(text):
    """The sentence with each of its numbers changed in turn, and each word that says which way."""
    for match in re.finditer(r"\d+(?:\.\d+)?(?:e[+-]\d+)?", text):
        first = match[0][0]
        yield text[: match.start()] + str(int(first) % 9 + 1) + text[match.start() + 1 :]
    for match in re.finditer(r"[+−](?=\d)", text):
        yield text[: match.start()] + {"+": "−", "−": "+"}[match[0]] + text[match.end() :]
    words = {"helps": "hurts", "hurts": "helps", "matters": "helps", " is ": " are ", " are ": " is "}
    words |= {"same": "other", " not ": " ", " nats": " logits", " logits": " nats"}
    for old, new in words.items():
        if old in text:
            yield text.replace(old, new, 1)


def refused(saved, text):
    try:
        read(saved, text)
    except (AssertionError, KeyError, IndexError, ValueError, TypeError, StopIteration, AttributeError):
        return True
    return False


@pytest.mark.parametrize("name", most(sorted(RUNS, key=lambda name: name in ALIKE), len(RUNS) - len(ALIKE)))
def test_every_sentence_says_what_the_data_say(made, name):
    saved = made(name)
    texts = [finding.text for finding in findings(saved.run)]
    texts += [question.answer(saved.run).text for question in [questions.question_of(saved.run)] if question]
    assert len(set(texts)) == len(texts)
    assert {read(saved, text) for text in texts} >= set(RUNS[name][2].split())


@pytest.mark.parametrize("name", most(sorted(RUNS, key=lambda name: name in LARGE), len(RUNS) - len(LARGE)))
def test_a_sentence_with_another_number_is_refused(made, name):
    saved = made(name)
    for finding in findings(saved.run):
        missed = [text for text in changed(finding.text) if not refused(saved, text)]
        assert not missed, finding.text


#: What only cards say.
OF_CARDS = (reading.looks_at, reading.matters_most, head_weights.composes, head_weights.copies)


@pytest.mark.parametrize("planted", [False, True])
def test_every_sentence_of_a_card_says_what_the_data_say(tmp_path, planted):
    """Also that none holds with another number."""
    values = {"heads": ["L0H1", "L1H2", "L1H3"], "prompts": {"name": "ioi", "n": 3}}
    if planted:
        heads = [str(head) for each in harness.load_model("planted").truth.values() for head in each]
        values = {"model": PLANTED, "heads": heads, "prompts": REPEATED, "metrics": ["loss"]}
    place = study.Place(str(tmp_path))
    saved = Saved(harness.open_run(study.run("explain_heads", asked(**values), place, lambda *_: None)))
    heads = map(harness.Head.parse, map(str, saved.data["card"].values))
    texts = [made.text for head in heads for kind in OF_CARDS for made in [kind(saved.run, head)] if made]
    assert {read(saved, text) for text in texts} == {kind.__name__ for kind in OF_CARDS}
    for text in texts:
        missed = [other for other in changed(text) if not refused(saved, other)]
        assert not missed, text


# Answers to questions: `test_questions` reads those of each preset here.


# --- sentences that no run here makes ---------------------------------------------------------------------------


def with_data(saved, **arrays):
    """The run with other values in some arrays."""
    data = saved.data.copy(deep=True)
    for name, values in arrays.items():
        data[name] = data[name].copy(data=np.broadcast_to(values, data[name].shape).astype(data[name].dtype))
    return Saved(replace(saved.run, data=data))


def with_attribute(saved, name, **attributes):
    data = saved.data.copy()
    data[name] = data[name].assign_attrs(attributes)
    return Saved(replace(saved.run, data=data))


def with_effects(saved, **means):
    """The run in which these heads move a loss or logit_diff by so much, and the others do nothing."""
    values = np.zeros(saved.data["effect"].shape)
    for head, mean in means.items():
        values[..., int(head[1]), int(head[3])] = mean
    return with_data(saved, effect=values + 0.001 * np.arange(len(values[0]))[:, None, None])


def each_its_own(run):
    return "prompt", [f"text {at}" for at in range(run.data.sizes["prompt"])]


def with_direct(run):
    """A run whose last head writes three times what its effect is."""
    noise = np.linspace(-0.01, 0.01, run.data.sizes["prompt"])[:, None, None]
    effect = run.data["effect"]
    direct = effect.copy(data=3 * effect.values + noise)
    return replace(run, data=run.data.assign(direct=direct, cluster=each_its_own(run)))


def others_for(saved, name):
    """The roles of tokens with no name in place of this one."""
    role = saved.data["token_role"].values.astype(str)
    return np.where(role == name, "other", role)


def skewed(run):
    """Forty clusters whose effects have long tails."""
    effect = run.data["effect"]
    values = np.random.default_rng(0).lognormal(0, 2, effect.shape).astype(effect.dtype)
    data = run.data.assign(cluster=each_its_own(run))
    spec = {**run.spec, "stats": {**run.spec["stats"], "resamples": 2000}}
    return with_claims(replace(run, spec=spec, data=data.assign(effect=effect.copy(data=values))))


#: Runs with other numbers in them, and a sentence that each must then make.
FAKES = {
    "untested": (lambda made, path: Saved(fake_run(path)), "movers", r"\d+ of 12 heads move the mean loss"),
    "one_mover": (lambda made, path: with_effects(Saved(fake_run(path)), L1H1=2.0), "movers", "1 of 12 heads moves"),
    "no_mover": (lambda made, path: with_effects(Saved(fake_run(path))), "movers", "0 of 12 heads move"),
    "one_prompt": (
        lambda made, path: Saved(fake_run(path, n_prompts=1)),
        "strongest",
        r".*\(one prompt, so no spread\)",
    ),
    "distance": (
        lambda made, path: Saved(fake_run(path, metrics=("kl",))),
        "strongest",
        "By kl, L1H2 matters most: abl",
    ),
    "repaired": (
        lambda made, path: Saved(with_claims(with_direct(fake_run(path, n_prompts=40)))),
        "direct",
        r".*: self-repair of 6\d %",
    ),
    "skewed": (lambda made, path: Saved(skewed(fake_run(path, n_prompts=40))), "trust", ".*40 clusters, and effects"),
    "other_tokens": (
        lambda made, path: with_data(made("sources"), token_role=others_for(made("sources"), "earlier copy")),
        "read_from",
        ".*is read from other tokens",
    ),
    "block": (lambda made, path: with_data(made("compare"), weight_change=[0, 0.25, 0]), "weights", ".*block 1 only"),
    "blocks": (
        lambda made, path: with_data(made("compare"), weight_change=[0, 0.5, 0.25]),
        "weights",
        ".*blocks 1 and 2 o",
    ),
    "moved": (
        lambda made, path: with_data(made("compare"), other_role_given=~made("compare").data["role_given"].values),
        "other_roles",
        "12 heads have other roles: .* and 7 more",
    ),
    "no_roles": (lambda made, path: with_data(made("study"), role_given=False), "no_role", "No head has one of"),
    "left_out": (
        lambda made, path: with_attribute(
            made("study"), "attribution", left_out=json.dumps({"alti": "it has no norm"})
        ),
        "left_out",
        "alti is left out: it has no norm",
    ),
    "no_roles_published": (
        lambda made, path: Saved(replace(made("fast").run, spec={**made("fast").spec, "published": PUBLISHED[3:]})),
        "published_role",
        r".*this run scored no roles",
    ),
    "none_spared": (lambda made, path: with_data(made("least"), cumulative_effect=9.0), "spared", ".*, 0 heads can go"),
    "all_spared": (
        lambda made, path: with_data(made("least"), cumulative_effect=0.0),
        "spared",
        ".*all that were tried",
    ),
    "enough": (lambda made, path: with_data(made("least"), set_effect=0.0), "sets", ".*: the set is enough"),
    "no_direct": (
        lambda made, path: with_attribute(Saved(fake_run(path)), "effect", no_direct="block 1 changes the stream"),
        "no_direct",
        "Direct effects are not given",
    ),
    "below_zero": (
        lambda made, path: with_data(Saved(fake_run(path)), clean=-0.05),
        "clean",
        "Unablated, the mean logit_diff is −0.0500 logits",
    ),
    "more_than_there_is": (
        lambda made, path: with_effects(with_data(Saved(fake_run(path)), clean=3.0), L0H1=-2.0, L1H1=-2.0),
        "sums",
        "Effects of single heads do not add up: of the 5 largest on logit_diff, those that help sum to ",
    ),
}


@pytest.mark.parametrize("name", most(sorted(FAKES, key=lambda name: name == "moved"), len(FAKES) - 1))
def test_what_only_other_numbers_make_is_said_as_well(made, tmp_path, name):
    build, reader, start = FAKES[name]
    saved = build(made, tmp_path)
    found = [(read(saved, finding.text), finding.text) for finding in findings(saved.run)]
    assert [text for name, text in found if name == reader and re.match(start, text)], found
    for _, text in [each for each in found if each[0] == reader]:
        missed = [other for other in changed(text) if not refused(saved, other)]
        assert not missed, text


def test_effects_on_a_loss_are_never_said_not_to_add_up(tmp_path):
    saved = with_effects(Saved(fake_run(tmp_path)), L0H1=9.0, L1H1=9.0)
    assert not [finding for finding in findings(saved.run) if "add up: of the 5 largest on loss" in finding.text]


def test_every_reader_is_needed():
    needed = {name for _, _, names in RUNS.values() for name in names.split()}
    needed |= (
        {reader for _, reader, _ in FAKES.values()} | {*questions.QUESTIONS} | {kind.__name__ for kind in OF_CARDS}
    )
    assert {name for name, *_ in READERS} <= needed

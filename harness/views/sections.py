"""Sections of the report, in the order of the page, with their explanations."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.views import edge_section, head_cards, number_tables, segment_section, text_section
from harness.views.figures import Picture
from harness.views.next_token_table import next_token_table
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

EFFECT = (
    "<b>Effect</b>: the metric with the head ablated minus the metric without, on the same prompt. "
    "<b>Helps</b>: ablating the head makes the model worse (loss rises, or logit difference, accuracy or probability "
    "falls); <b>hurts</b>: it makes it better. Distances (kl, embedding) only show that a head matters."
)
ROLLOUT = (
    "<b>Attention rollout</b>: the layers’ head-averaged patterns, mixed with the identity for the residual stream and "
    "multiplied (Abnar &amp; Zuidema 2020): where information could have come from if attention alone moved it. "
    "<b>Mean pattern</b>: the plain average over all heads and layers. Weights have no unit; each row sums to 1. "
    "All are shaded by the square root of the weight, from 0 to 1."
)
CROSS = (
    "<b>Mean pattern</b>: the plain average of the cross attention over all heads and layers: what of the source is "
    "read while each token is written. Of an encoder-decoder there is no rollout. Weights have no unit; each row sums "
    "to 1. All are shaded by the square root of the weight, from 0 to 1."
)
LAYERS = (
    "The rows below the heads are what ablating a layer’s whole attention, or its MLP, does, on the same scale of "
    "colours: a head is to be read against its layer."
)
DIRECT = (
    "<b>Direct</b> is the direct effect: the head’s own write to the residual stream ablated, all else clean, with the "
    "final norm’s scale frozen; <b>later layers</b> is the rest of the effect, through the layers above."
)
ROLES = (
    "A head has a <b>role</b> where its score (a share of attention, or of tokens, 0 to 1) is beyond chance with all "
    "heads taken together (max-T), and at least roles.threshold of the way from the chance level to 1. <b>By "
    "chance</b>: tokens shuffled, or keys drawn from all that the mask of the layer allows. Two rules more: "
    "<b>positional</b> needs a score of 0.9, and a head with previous_token, next_token or same_token, which are more "
    "specific, has neither <b>positional</b> nor <b>diagonal</b>, however high its score. A head may have several "
    "roles, or no role. On the maps a dot marks a head that has the role."
)
NEEDS_SCRIPTS = "<noscript><p>This view needs scripts; everything it draws is in data.zarr.</p></noscript>"
#: Sections that are their figures: title and explanation.
PICTURED = {
    "changed": (
        "What changed from one model to the other",
        "Other model less base: the change of each head’s effect, how far apart its patterns are (Jensen–Shannon "
        "distance, 0 alike to 1), the head whose patterns are furthest apart, and each prompt. Every value is in "
        "data.zarr: effect_change, pattern_distance, clean_change.",
    ),
    "layers": (
        "Effect of ablating each layer",
        "The mean effect of ablating all heads of a layer, its MLP, or the residual stream before it, and its standard "
        "error over prompts. No single heads were ablated (sweep.kind=single does). Every value is in data.zarr, "
        "layer_effect, attn_effect, mlp_effect and resid_effect.",
    ),
    "activations": (
        "Query, key, value or pattern: which of a head matters",
        "Each head’s <b>query</b>, <b>key</b>, <b>value</b> or <b>pattern</b> alone was replaced; of keys and values "
        "that several heads share, this head alone reads the changed ones. A pattern that carries an effect says that "
        "where the head looks matters, a value that what it reads there does. The parts need not sum to the effect of "
        "z. Every value is in data.zarr, activation_effect, and in activations.csv.",
    ),
    "maps": (
        "Where the prediction is made: effects by layer and position",
        "The residual stream before each layer (and at its end), each layer’s attention, and each MLP were ablated at "
        "one position at a time. Where the run patched, a value is the share of the way that the mean metric goes from "
        "the run that is patched to the other: 0 changes nothing, 1 is all of it. Columns are positions where all "
        "prompts have one length, else roles of tokens. <b>Changed</b>: on how many prompts the most likely token at "
        "the last scored position is another with the cell replaced. Every value is in data.zarr, resid_effect, "
        "attn_effect, mlp_effect, clean and corrupted; the tokens are resid_next_token and its kin.",
    ),
    "positions": (
        "Where a head is needed",
        "Each head was ablated at one position at a time. Rows are the heads with the largest effect at some position, "
        "columns the tokens of one prompt; every value is in data.zarr, position_effect.",
    ),
    "sets": (
        "Heads ablated together",
        "The effect of ablating all heads of a set at once (or, with sweep.kind=complement, all heads but those of the "
        "set): a dot for each prompt, the mean and its standard error. Every value is in data.zarr, set_effect.",
    ),
    "pruning": (
        "Pruning curve: one head after another",
        "Heads are ablated one after another and stay ablated. A band is the spread of random orders. Every value is "
        "in data.zarr, cumulative_effect.",
    ),
    "pairs": (
        "Heads ablated in pairs",
        "The effect of ablating two heads together less the sum of the single effects: with one sign they back each "
        "other up, with the other one needs the other. Every value is in data.zarr, pair_effect.",
    ),
    "methods": (
        "Methods against causes",
        "How well each method’s scores agree with the causes measured by changing the tokens.",
    ),
}
PATTERN = (
    "<b>Pattern</b>: how the head spreads its attention. Each row is a token that looks (query, “destination”), each "
    "column a token that is looked at (key, “source”); rows sum to 1, and values here are rounded to 0.004."
)
_SINK = (
    " This model’s softmax has a learnt sink: the last column is its share, which goes to no token and carries nothing."
)


@dataclass(frozen=True)
class Section:
    """A part of the report: its anchor, heading, markup, and what its words and pictures mean, folded behind a "?"."""

    anchor: str
    title: str
    body: str
    about: str = ""

    def __str__(self) -> str:
        label = f"What {self.title} shows"
        about = (
            f"<details class='about'><summary aria-label='{markup(label)}'>?</summary>"
            f"<p class='define'>{self.about}</p></details>"
            if self.about
            else ""
        )
        heading = f'<h2 id="{self.anchor}-title">{self.title}</h2>{about}'
        return f'<section id="{self.anchor}" aria-labelledby="{self.anchor}-title">\n{heading}\n{self.body}\n</section>'


def sections(run: "Run", drawn: Sequence[Picture], left_out: str) -> list[Section]:
    """Build the sections that the run has data for, in order; `left_out` states which patterns are not on the page."""
    made = []
    if "clean_change" in run.data:
        made.append(_changed(run, drawn))
    if "effect" in run.data:
        made += [_map(run, drawn), _strongest(run, drawn)]
    made += [Section("cards", "Why these heads", body, head_cards.ABOUT) for body in [head_cards.cards(run)] if body]
    if "role_given" in run.data:
        made.append(_roles(run, drawn))
    pictured = [part for part in PICTURED if part != "changed" and any(each.part == part for each in drawn)]
    made += [_maps(run, drawn) if part == "maps" else _of_pictures(part, drawn) for part in pictured]
    made += _of_tables(run, drawn)
    if "attribution" in run.data or "cause" in run.data:
        made.append(_sources())
    if "pattern" in run.data:
        made += [_compare(run, drawn), _model_view(), _head_view(), _head(run, left_out)]
    if "effect" in run.data:
        made.append(_numbers(run))
    made.append(Section("prompts", "The prompts", number_tables.prompts(run)))
    made.append(_how(run))
    return made


def _of_tables(run: "Run", drawn: Sequence[Picture]) -> list[Section]:
    """Build the sections of the run's other tables: edges, segments, texts and tasks."""
    made = []
    if len(run.edges):
        graph = edge_section.graph_and_table(run)
        made.append(Section("edges", "Edges: which head feeds which", graph, edge_section.ABOUT))
    if len(run.parts):
        made.append(_parts(run, drawn))
    if len(run.texts):
        made.append(Section("texts", "What is written with heads ablated", text_section.texts(run), text_section.ABOUT))
    if len(run.tasks):
        made.append(Section("tasks", "Tasks with heads ablated", number_tables.tasks(run), _TASKS))
    return made


_TASKS = (
    "Each row is a task’s score by the clean model and without the heads of a set: means over items, their difference, "
    "and its interval over items, each item paired with itself. <b>Random</b> sets have as many heads as the one that "
    "they stand beside. What every item was answered is in the folder lm_eval, as lm-evaluation-harness logs it."
)


def _map(run: "Run", drawn: Sequence[Picture]) -> Section:
    level, share = run.level, run.threshold(run.lead_metric)[0]
    marks = (
        f" A <b>ring</b> marks an <b>important</b> head: shown, all heads taken together, to have an effect beyond "
        f"±{100 * share:g} % of the clean value. A faint <b>dot</b> marks a head that is shown to have any effect "
        f"(max-T p &lt; {level:g}: at most a {100 * level:g} % chance of naming even one head without); of all others "
        "the side that their colour is on is <b>unsure</b>."
    )
    marks = marks if _tested(run) else ""
    sums = " The bars above the map are the sums of each layer’s single effects; hatched cells and bars hurt."
    whole = f" {LAYERS}" if {"layer_effect", "mlp_effect"} & set(run.data) else ""
    straight = f" {DIRECT}" if "direct" in run.data else ""
    body = f"{_drawn('map')}{_pictures(drawn, 'map')}"
    return Section("map", "What each head is worth", body, f"{EFFECT}{marks}{sums}{whole}{straight}")


def _strongest(run: "Run", drawn: Sequence[Picture]) -> Section:
    doubt = " Hollow: not shown to have an effect, its max-T p beside the interval." if _tested(run) else ""
    about = (
        "The large dot is the mean, the bar through it the interval that is written beside it, a faint dot one prompt, "
        "the dashed tick the direct effect. The metric is the one chosen above; a click opens the head, and a faint "
        f"dot its prompt too.{doubt}"
    )
    body = f"{_drawn('ranking')}{_pictures(drawn, 'strongest')}"
    return Section("strongest", "The strongest heads", body, about)


def _head(run: "Run", left_out: str) -> Section:
    note = f"<p class='note'>{markup(left_out)}</p>" if left_out else ""
    missing = "<noscript><p>Opening a single head needs scripts; its pattern is in data.zarr.</p></noscript>"
    about = PATTERN + (_SINK if "sink" in run.data else "")
    return Section("head", "The layer’s heads, one of them in CircuitsVis", f"{note}{_drawn('head')}{missing}", about)


def _head_view() -> Section:
    about = (
        "The same tokens twice: those that look on the left, those looked at on the right, a line for every weight. "
        "Heads of the layer can be switched on and off."
    )
    return Section("headview", "Head view: who looks where", f"{_drawn('headview')}{NEEDS_SCRIPTS}", about)


def _model_view() -> Section:
    about = "Each small picture is one head on this prompt, shaded by the square root of the weight. A click opens it."
    return Section("modelview", "Every head on this prompt", f"{_drawn('modelview')}{NEEDS_SCRIPTS}", about)


def _compare(run: "Run", drawn: Sequence[Picture]) -> Section:
    if "source_length" in run.data:
        title, about = "What is read of the source: mean pattern and top heads", CROSS
    else:
        title, about = "Rollout, mean pattern and the top heads", ROLLOUT
    return Section("rollout", title, f"{_drawn('compare')}{_pictures(drawn, 'rollout')}", about)


def _sources() -> Section:
    about = (
        "Each line has the scores of one attribution <b>method</b>; those marked <b>cause</b> were measured by "
        "changing the token. The shade is the share of the line’s largest score, orange where a score is negative; a "
        "word’s score is the sum of its tokens’."
    )
    return Section("sources", "Where a prediction came from", f"{_drawn('sources')}{NEEDS_SCRIPTS}", about)


def _of_pictures(part: str, drawn: Sequence[Picture]) -> Section:
    """Build a section of charts; without scripts their figures stand in."""
    title, define = (PICTURED | {"parts": ("Parts of the prompt", segment_section.ABOUT)})[part]
    return Section(part, title, _charts(drawn, part), define)


def _maps(run: "Run", drawn: Sequence[Picture]) -> Section:
    """Show the maps, and beneath them what the model says next with their strongest cells replaced."""
    section = _of_pictures("maps", drawn)
    return replace(section, body=section.body + next_token_table(run))


def _changed(run: "Run", drawn: Sequence[Picture]) -> Section:
    """Show the figures and the table of changes; or, of models with other numbers of heads, of their roles."""
    section = _of_pictures("changed", drawn)
    return replace(
        section, body=section.body + (number_tables.changes(run) if len(run.changes) else number_tables.both_roles(run))
    )


def _roles(run: "Run", drawn: Sequence[Picture]) -> Section:
    """Show the roles of heads; where no head has one and no effects are mapped, with a map to choose a role on."""
    charted = any(each.part == "roles" for each in drawn)
    choose_on = "" if charted or "effect" in run.data else _drawn("map")
    body = f"{choose_on}{_charts(drawn, 'roles')}{number_tables.roles(run)}"
    return Section("roles", "What heads do: their roles", body, ROLES)


def _parts(run: "Run", drawn: Sequence[Picture]) -> Section:
    """Show the parts of a prompt: their chart, and their tables."""
    pictured = _of_pictures("parts", drawn)
    return replace(pictured, body=segment_section.texts(run) + pictured.body + segment_section.traced(run))


def _tested(run: "Run") -> bool:
    return any(run.tested(metric) for metric in run.metrics)


def _numbers(run: "Run") -> Section:
    share = run.spec.get("stats", {}).get("min_effect", 0.05)
    about = (
        f"<b>ci</b>: {run.interval_name} from resampling clusters of prompts, for one head at a time. "
        "<b>effect_size</b>: mean of the clusters over their standard deviation. <b>p_value</b>: the signs of whole "
        "clusters flipped, one head at a time. <b>q_value</b>: Benjamini–Hochberg, the share of false discoveries to "
        "expect among heads with this q or less; no verdict here uses it. <b>p_adjusted</b>: max-T, the chance of a "
        f"test result this extreme in any head if none had an effect; <b>significant</b> (shown) is p_adjusted &lt; "
        f"{run.level:g}. <b>p_important</b>: the same, if every effect were at most ±{100 * share:g} % of the clean "
        f"value; <b>important</b>, the column to quote, is p_important &lt; {run.level:g} with the whole interval "
        f"beyond that. Both hold for all heads together: at most a {100 * run.level:g} % chance of one wrong name."
    )
    return Section("numbers", "The exact numbers", number_tables.numbers(run), about if _tested(run) else "")


def _how(run: "Run") -> Section:
    spec, manifest = number_tables.settings(run.spec, "spec"), number_tables.settings(run.manifest, "manifest")
    return Section("how", "How it was run", f"<h3>Spec</h3>{spec}<h3>Manifest</h3>{manifest}")


def _drawn(name: str) -> str:
    return f'<div class="drawn" id="draw-{name}"></div>'


def _charts(drawn: Sequence[Picture], part: str) -> str:
    """Hold a place for the chart of each figure, drawn by the page's scripts; without scripts the figure itself."""
    places = "".join(
        f'<div class="chart" data-chart="{markup(each.name)}"></div>' for each in drawn if each.part == part
    )
    return places + _pictures(drawn, part)


def _pictures(drawn: Sequence[Picture], part: str) -> str:
    return f"<noscript>{_images(drawn, part)}</noscript>"


def _images(drawn: Sequence[Picture], part: str) -> str:
    return "".join(f'<img alt="{markup(each.label)}" src="{each.uri}">' for each in drawn if each.part == part)

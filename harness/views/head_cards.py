"""The report's section on head cards: why each of some heads matters."""

from typing import TYPE_CHECKING

from harness.config import RequestError
from harness.findings.account import account_finding, account_of
from harness.findings.direct import source_finding
from harness.findings.edges import edges_of
from harness.findings.format import listed, number, signed, with_spread
from harness.findings.reading import looks_at
from harness.hooks import Head
from harness.views import card_charts
from harness.views.card_weights import by_weights, extremes, token_text
from harness.views.notebook import View, static_view
from harness.views.selection import checked_head
from harness.views.text import markup

if TYPE_CHECKING:
    from harness.results import Run

ABOUT = (
    "Each card is about one head. <b>Reads</b>: what it looks at where the prediction is scored. <b>Most and "
    "least</b>: the prompts where its effect is largest and smallest, shaded by the square root of what the last "
    "scored position gives each token. <b>Writes</b>: the "
    "tokens whose logits its own output raises and lowers most there, straight through the unembedding. <b>Paths</b>: "
    "the strongest measured edges from it and into it, where the run has edges (sweep.kind=[single,edges]). "
    "<b>Weights alone</b>: no prompt is read. Which heads it composes with: the size of one head’s output matrix times "
    "what the other reads by its query, key or value, over the size for random matrices; named beyond the largest that "
    "all partners reach when the stream between them is turned at random. The OV circuit’s singular directions: tokens "
    "whose embeddings lie along what is read, and tokens whose logits rise. <b>Where "
    "the effect went</b>: the effect of ablating it as a sum, from its direct effect over what each later head and MLP "
    "adds or takes back; <b>norms</b> is what no component can be charged with, the change of a norm’s scale. <b>Logit "
    "lens</b>: the metric, were the stream before a layer the last, with all heads and without this one."
)
#: Heads with a card where a run accounts for the effects of all heads.
_OF_ALL = 6
#: Height of a card in pixels, estimated, and of its logit lens.
_HEIGHT, _LENS_HEIGHT = 900, 340


def card_heads(run: "Run") -> list[Head]:
    """Return the heads that have a card, the largest effect first."""
    if "card" in run.data.coords:
        named = {str(name) for name in run.data["card"].values}
        ranked = run.top_heads(run.lead_metric, len(run.ablated_heads)) if "effect" in run.data else []
        return [head for head in ranked if str(head) in named]
    return run.top_heads(run.lead_metric, _OF_ALL) if "account" in run.data else []


def cards(run: "Run") -> str:
    """Show a card of each head."""
    return "".join(_card(run, head) for head in card_heads(run))


def head_card(run: "Run", head: Head | str) -> View:
    """Show why one head matters: the card of the report's tab.

    Effects are in the metric's unit; what a run does not have (see `explain_heads`) its card leaves out. Raises
    `RequestError` for a head without a card.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> prompts = harness.load_prompts("induction", model, n=4)
    >>> run = harness.ablate_heads(model, prompts, metrics="logit", account=True)
    >>> harness.views.head_card(run, run.top_heads("logit", 1)[0])
    View(Why L1H4 matters)
    """
    head, there = checked_head(run, head), card_heads(run)
    if head not in there:
        remedy = f"cards here: {listed([*map(str, there)])}" if there else "no head has one; explain_heads makes them"
        raise RequestError("head", head, remedy)
    title, lens = f"Why {head} matters", "lens" in run.data
    body = f"<header><h1>{title}</h1></header><main>{_card(run, head)}</main>"
    return static_view(title, body, _HEIGHT + _LENS_HEIGHT * lens)


def _card(run: "Run", head: Head) -> str:
    metric = next((name for name in run.metrics if account_of(run, name, head) is not None), run.lead_metric)
    effect = with_spread(run.estimate(metric, head), run.unit(metric))
    parts = [_reads(run, metric, head), extremes(run, head), _writes(run, head), _edges(run, metric, head)]
    parts += [by_weights(run, head), _went(run, metric, head), _lens(run, metric, head)]
    return (
        f'<article class="head-card" id="card-{head}"><h3>{head} <span>{markup(metric)} {markup(effect)}</span></h3>'
        f"{''.join(parts)}</article>"
    )


def _reads(run: "Run", metric: str, head: Head) -> str:
    sentences = [finding.text for finding in [looks_at(run, head)] if finding]
    if "source_direct" in run.data and "token_role" in run.data:
        by_key = run.data["source_direct"].sel(metric=metric, **head.place).values
        if (by_key == by_key).all() and by_key.any():
            sentences.append(source_finding(run, metric, head, by_key).text)
    return f"<p><b>Reads.</b> {markup(' '.join(sentences))}</p>" if sentences else ""


def _writes(run: "Run", head: Head) -> str:
    if "written_token" not in run.data or str(head) not in run.data["card"].values:
        return ""
    token, logit = (run.data[f"written_{name}"].sel(card=str(head)) for name in ("token", "logit"))
    sides = []
    for side in ("raised", "lowered"):
        pairs = zip(token.sel(side=side).values, logit.sel(side=side).values, strict=True)
        tokens = ", ".join(f"<code>{token_text(str(text))}</code>&nbsp;{signed(float(value))}" for text, value in pairs)
        sides.append(f"{side}: {tokens}")
    return f"<p class='writes'><b>Writes.</b> {'; '.join(sides)}.</p>"


def _edges(run: "Run", metric: str, head: Head) -> str:
    if not len(run.edges):
        return ""
    listed = [f"{head} {way}: {'; '.join(edges)}." for way, edges in edges_of(run, metric, head).items()]
    return f"<p><b>Paths.</b> {markup(' '.join(listed))}</p>" if listed else ""


def _went(run: "Run", metric: str, head: Head) -> str:
    account = account_of(run, metric, head)
    if account is None:
        return ""
    sentence = account_finding(run, metric, head, account).text
    drawn = card_charts.waterfall(account, str(head), run.units(metric))
    return f"<figure><figcaption><b>Where the effect went.</b> {markup(sentence)}</figcaption>{drawn}</figure>"


def _lens(run: "Run", metric: str, head: Head) -> str:
    if "lens" not in run.data or str(head) not in run.data["card"].values:
        return ""
    clean = run.data["lens"].sel(metric=metric).mean("prompt").values
    ablated = run.data["lens_ablated"].sel(metric=metric, card=str(head)).mean("prompt").values
    drawn = card_charts.lens({"clean": clean, "ablated": ablated}, str(head), metric)
    caption = (
        f"<b>Logit lens</b> of {markup(metric)}: <i class='clean'>clean</i> and <i class='ablated'>without {head}</i>; "
    )
    caption += f"at the end {number(float(clean[-1]))} and {number(float(ablated[-1]))}."
    return f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>"

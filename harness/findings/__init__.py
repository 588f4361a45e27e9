"""Findings: sentences about a saved run, each with the number it states and its interval.

`format` writes numbers, `intervals` computes those that no table has. Sentences: `effects` about single heads, `direct`
about direct effects and the tokens they are read from, `activations` about q, k, v and patterns, `account` about what
later components add, `edges` about paths between heads and MLPs, `joint_ablations` about sets, orders and pairs,
`next_tokens` about what a model says next, `position_maps` about effects by layer and position, `rollout_vs_head` about
what rollout and the top head attend to, `approximation_quality` about fast sweeps and screens, `roles` about roles,
`changes` about two models, `methods` about attribution methods, `segments` about the segments of a context, `texts`
about what an ablated model writes, `tasks` about its scores, and `published` about others' values beside ours.

>>> import harness
>>> run = harness.look("planted", " da ko li da ko").run
>>> print(harness.findings.in_words(run).split(". ")[1])
Attention patterns were kept; no head was ablated.
"""

from typing import TYPE_CHECKING

from harness.findings import effects
from harness.findings.account import accounted
from harness.findings.activations import carried, replaced
from harness.findings.approximation_quality import blind, quick
from harness.findings.changes import changed, other_name
from harness.findings.direct import direct_parts, read_from
from harness.findings.edges import strongest_edges
from harness.findings.finding import Finding as Finding
from harness.findings.format import count, listed, named
from harness.findings.joint_ablations import together
from harness.findings.methods import compared
from harness.findings.position_maps import mapped, strongest_cells
from harness.findings.published import published
from harness.findings.roles import roles
from harness.findings.rollout_vs_head import agreement
from harness.findings.segments import traced
from harness.findings.tasks import scored
from harness.findings.texts import written
from harness.metrics import title

if TYPE_CHECKING:
    from harness.results import Run


_NOTHING = "Attention patterns were kept; no head was ablated."
#: What was ablated other than single heads, by the variable of its effects.
_OTHER_ABLATIONS = {
    "layer_effect": "the heads of each layer together",
    "mlp_effect": "each layer's MLP",
    "attn_effect": "each layer's attention",
    "resid_effect": "the residual stream before each layer and after the last",
    "set_effect": "named sets of heads",
    "position_effect": "each head at one position at a time",
    "cumulative_effect": "heads one after another",
    "pair_effect": "heads in pairs",
    "role_effect": "the heads of each role together",
    "activation_effect": "one activation of each head alone",
    "edge_effect": "heads, as one input of a later head or MLP reads them",
}


def findings(run: "Run") -> list[Finding]:
    """Return the sentences that the run's data allow, the most important first.

    Each `Finding` has its text, the number in it with its interval in the unit of the text (NaN where there is none),
    and the variable that it was computed from.

    >>> import harness
    >>> model = harness.load_model("planted")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> first = harness.findings.findings(effects)[0]
    >>> first.text.partition(" at ")[0], first.value
    ('With 4 clusters of prompts nothing can be significant', 4.0)
    """
    metrics = run.metrics
    caution, first = list(effects.caution(run)), effects.nothing_can_be_shown(run)
    each: list[Finding | None] = [*(caution if first else ()), *blind(run), *changed(run)]
    each += [part(run, metric) for part in (effects.helpers, effects.hurters, effects.counts) for metric in metrics]
    each += [effects.sums(run, metric) for metric in metrics]
    each += [
        finding for part in (direct_parts, read_from, accounted) for metric in metrics for finding in part(run, metric)
    ]
    each += [
        *carried(run),
        *strongest_edges(run),
        *together(run),
        *strongest_cells(run),
        *traced(run),
        *written(run),
        *scored(run),
    ]
    each += [effects.clean(run, metric) for metric in metrics]
    rest = (
        *quick(run),
        *published(run),
        *roles(run),
        *effects.rankings(run),
        *agreement(run),
        *compared(run),
        *(() if first else caution),
    )
    return [finding for finding in (*each, *rest) if finding is not None]


def in_words(run: "Run") -> str:
    """Describe what was run, in a few sentences."""
    spec, sizes = run.spec, run.data.sizes
    prompts, model = named(spec.get("prompts")), named(spec.get("model"))
    shape = f" ({_shape(run)})" if {"layer", "head"} <= set(sizes) else ""
    both = f" and {other_name(run)} each" if "clean_change" in run.data else ""
    text = f"{model}{shape}{both} read {count(sizes['prompt'], 'prompt')} of the set {prompts}"
    length = run.data["length"].values
    span = f"{length.min()}" if length.min() == length.max() else f"{length.min()} to {length.max()}"
    text += f", {span} token{'s' if length.max() != 1 else ''} each{_example(run)}."
    if "effect" not in run.data:
        return f"{text} {_otherwise(run)}"
    metrics, heads = run.metrics, len(run.ablated_heads)
    text += f" {count(heads, 'head')} {'was' if heads == 1 else 'were'} ablated one at a time "
    text += f"({_ablation(spec.get('ablation'))}), and {listed(list(map(title, metrics)))} "
    text += f"{'was' if len(metrics) == 1 else 'were'} measured on each prompt."
    alone = listed(replaced(run))
    return f"{text} So was what replacing each head's {alone} alone does." if alone else text


def _ablation(spec: dict | str | None) -> str:
    """Name an ablation; of scaling, say what it does to z, which its name alone leaves open."""
    if isinstance(spec, dict) and spec.get("name") == "scale":
        return f"z is multiplied by {spec['factor']:g}".replace("-", "−")
    return f"{named(spec)}-ablation"


def _otherwise(run: "Run") -> str:
    """Describe what was done where no single heads were ablated."""
    ablated = [what for name, what in _OTHER_ABLATIONS.items() if name in run.data]
    in_turn = ", at one position at a time" if mapped(run) else ""
    done = [f"Ablated: {listed(ablated)}{in_turn}."] if ablated else []
    if "part_cause" in run.data:
        done.append(f"What they predict was traced to {count(run.data.sizes['part'], 'part')}.")
    if "clean_text" in run.data:
        n = count(run.data.sizes["new_position"], "token")
        done.append(
            f"They were continued by at most {n}, clean and with heads ablated ({_ablation(run.spec.get('ablation'))})."
        )
    if "clean_score" in run.data:
        n = count(len({*map(str, run.data["item_task"].values)}), "task")
        done = [
            f"Run: {n} of lm-evaluation-harness, clean and with heads ablated ({_ablation(run.spec.get('ablation'))})."
        ]
    if "pattern" in run.data or not done:
        done += [] if ablated else [_NOTHING]
    return " ".join(done)


def _shape(run: "Run") -> str:
    """Describe layers and heads, of an encoder-decoder by stack."""
    sizes, model = run.data.sizes, (run.manifest.get("model") or {})
    if not model.get("n_encoder_layers"):
        return f"{sizes['layer']} layers × {sizes['head']} heads"
    return (
        f"{model['n_encoder_layers']} encoder and {model['n_layers']} decoder layers × {sizes['head']} heads, the "
        "decoder's once for itself and once for the source"
    )


def _example(run: "Run") -> str:
    """Quote the first prompt with its right answer, where it has one."""
    row = run.data.isel(prompt=0)
    answer = str(row["answer"].values).strip() if "answer" in row else ""
    if not answer:
        return ""
    text = run.text(0).strip()
    shown = text if len(text) <= 100 else f"…{text[-99:]}"
    wrong = str(row["distractor"].values).strip() if "distractor" in row else ""
    return f", such as “{shown}” (right answer “{answer[:30]}”{f', wrong “{wrong[:30]}”' if wrong else ''})"

"""Two parts of a head card: what the weights say alone, and the prompts where the head matters most and least."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from harness.findings.format import number, signed
from harness.findings.head_weights import Composition, Partners, composes, composition_of, copies, singular_shares
from harness.findings.reading import matters_most, shown_row
from harness.hooks import Head
from harness.views.text import markup, visible

if TYPE_CHECKING:
    from harness.results import Run

_CIRCUITS = {"q": "query", "k": "key", "v": "value"}
#: A token that is a piece of a character, decoded by itself.
_PIECE = "\ufffd"


def by_weights(run: "Run", head: Head) -> str:
    """Show which heads one composes with, and the singular directions of its OV circuit as tokens."""
    findings = [finding.text for finding in (composes(run, head), copies(run, head)) if finding]
    partners = composition_of(run, head)
    if partners is None:
        return ""
    tables = _composition(partners) + _directions(run, head)
    return (
        f"<p><b>Weights alone.</b> {markup(' '.join(findings))}</p>"
        f'<details class="by-weights"><summary>Partners and directions of {head}</summary>{tables}</details>'
    )


def _composition(partners: Composition) -> str:
    """Make the table of partners beyond chance: a row for each input."""
    heads = ("", "reads (earlier heads)", "by chance", "is read by (later heads)", "by chance")
    rows = []
    for circuit, name in _CIRCUITS.items():
        pairs = [partners[way][circuit] for way in ("is fed by", "feeds")]
        cells = "".join(f"<td>{_partners(each)}</td><td>{_chance(each)}</td>" for each in pairs)
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    return _table(heads, rows, "Composition scores over that of random matrices")


def _partners(each: Partners) -> str:
    named = [f"{markup(name)}&nbsp;{number(ratio)}" for name, ratio in each.beyond]
    return ", ".join(named) or ("none" if each.heads[0] else "–")


def _chance(each: Partners) -> str:
    return number(each.chance) if each.heads[0] else ""


def _directions(run: "Run", head: Head) -> str:
    """Make the table of singular directions: what each reads and writes, with either sign."""
    token = run.data["ov_token"].sel(card=str(head))
    shares, rows = singular_shares(run, head), []
    for direction in range(token.sizes["direction"]):
        share = f"{number(100 * shares[direction])} %"
        for sign in ("+", "-"):
            one = token.isel(direction=direction).sel(sign=sign)
            cells = "".join(f"<td>{_codes(one.sel(end=end))}</td>" for end in ("read", "written"))
            first = f'<th scope="rowgroup" rowspan="2">{direction + 1} ({share})</th>' if sign == "+" else ""
            rows.append(f"<tr>{first}<td>{signed_word(sign)}</td>{cells}</tr>")
    heads = ("direction", "sign", "reads tokens near", "raises the logits of")
    return _table(heads, rows, "Singular directions of the OV circuit")


def signed_word(sign: str) -> str:
    """Return the sign as it is set."""
    return "−" if sign == "-" else sign


def _codes(tokens: xr.DataArray) -> str:
    return " ".join(f"<code>{token_text(str(text))}</code>" for text in tokens.values)


def token_text(text: str) -> str:
    """Return a vocabulary entry as HTML: blanks are visible, a piece of a character is a box."""
    return markup(visible(text).replace(_PIECE, "▯"))


def _table(heads: tuple[str, ...], rows: list[str], caption: str) -> str:
    titles = "".join(f'<th scope="col">{title}</th>' if title else "<td></td>" for title in heads)
    body = f"<caption>{caption}</caption><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="tall" tabindex="0" role="region" aria-label="{caption}"><table>{body}</table></div>'


def extremes(run: "Run", head: Head) -> str:
    """Show the text of the prompts where a head matters most and least, shaded by what its scored position looks at."""
    finding = matters_most(run, head)
    if finding is None:
        return ""
    prompts = run.data["shown_prompt"].sel(card=str(head))
    sides = dict.fromkeys(("most", "least") if len({*prompts.values.tolist()}) > 1 else ("most",))
    strips = "".join(_strip(run, head, side, int(prompts.sel(extreme=side))) for side in sides)
    return f"<p><b>Most and least.</b> {markup(finding.text)}</p>{strips}"


def _strip(run: "Run", head: Head, side: str, prompt: int) -> str:
    row, effect = shown_row(run, head, side), float(run.effect(run.lead_metric, head)[prompt])
    shaded = zip(run.token_labels(prompt), row, np.sqrt(row), strict=True)
    tokens = " ".join(
        f'<bdi style="--share:{shade:.3f}" title="weight {weight:.3f}, position {at}">{markup(text)}</bdi>'
        for at, (text, weight, shade) in enumerate(shaded)
    )
    label = f"{side}: prompt {prompt}, {signed(effect)}{run.unit(run.lead_metric)}"
    return f'<div class="strip" tabindex="0" role="group" aria-label="{label}"><span>{label}</span> {tokens}</div>'

"""Table of texts (``texts.csv``): a row for each prompt and set of heads."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from harness.execute import Closed
from harness.results.schema import TABLES

_WRITERS = ("clean", "ablated")


@dataclass(frozen=True)
class TextTable:
    """Write ``texts.csv``."""

    def close(self, data: xr.Dataset) -> Closed:
        return Closed(data, {"texts": texts_table(data)})


def texts_table(data: xr.Dataset) -> pd.DataFrame:
    """Make a row for each prompt and set of heads: the named sets first, each followed by those drawn beside it.

    ``set`` names a random set by the one that it stands beside, and ``draw`` numbers it. ``parts_at`` is the number of
    the first new token that differs (NaN: none does), beside it the clean and the ablated text's token there, each with
    its probability by the clean and by the ablated model.
    """
    beside = [str(name) for name in data["drawn_beside"].values]
    names = [str(name) for name in data["set"].values]
    order = sorted(range(len(names)), key=lambda at: names.index(beside[at] or names[at]))
    draws = [beside[:at].count(beside[at]) if beside[at] else np.nan for at in range(len(names))]
    values = {name: data[name].values for name in data.data_vars}
    rows = []
    for prompt, text in enumerate(values["read_text"]):
        for at in order:
            row = {
                "prompt": prompt,
                "set": beside[at] or names[at],
                "draw": draws[at],
                "heads": values["set_heads"][at],
            }
            row |= {"text": text, "clean": values["clean_text"][prompt], "ablated": values["ablated_text"][prompt, at]}
            row["parts_at"] = values["parts_at"][prompt, at]
            for writer, name in enumerate(_WRITERS):
                row[f"{name}_token"] = values["parting_token"][prompt, at, writer]
                row |= zip(
                    [f"{name}_token_{by}" for by in _WRITERS],
                    values["parting_probability"][prompt, at, writer],
                    strict=True,
                )
            row["first_head"] = values["first_head"][prompt, at] if "first_head" in values else ""
            rows.append(row)
    return pd.DataFrame(rows, columns=np.array(TABLES["texts"].columns))

"""The run directory: what a run leaves, opened again without the model and without torch.

`store` writes units and arrays so that nothing half-done is ever taken for finished (`objects` where it lies in an
object store, `lease` who works on it there), `manifest` says what decided
the numbers, `tables` turns arrays into ``heads.csv``.
"""

import html
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import xarray as xr
import yaml

from harness.config import RequestError
from harness.results.manifest import read_manifest
from harness.results.objects import Folder, folder_at
from harness.results.store import digests, read_data
from harness.results.tables import read_changes, read_heads, read_methods, read_parts

_SHOWN = ("metric", "stack", "layer", "head", "effect_mean", "ci_low", "ci_high", "p_adjusted", "important")


@dataclass(frozen=True)
class Run:
    """A saved run: its spec and manifest, its labelled arrays (read from disk when they are used), its heads,
    where methods were held against causes its methods, where two models were compared the changes, and where it was
    traced its parts and who carries them."""

    path: Folder
    spec: dict[str, Any]
    manifest: dict[str, Any]
    data: xr.Dataset
    heads: pd.DataFrame
    methods: pd.DataFrame = field(default_factory=pd.DataFrame)
    changes: pd.DataFrame = field(default_factory=pd.DataFrame)
    parts: pd.DataFrame = field(default_factory=pd.DataFrame)
    part_heads: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __repr__(self) -> str:
        model, prompts = self.spec.get("model", {}).get("name"), self.spec.get("prompts", {}).get("name")
        return f"Run({self.path}, model={model}, prompts={prompts}, status={self.manifest.get('status')})"

    def _repr_html_(self) -> str:
        """What a notebook shows: what was run, and the strongest heads by each metric."""
        facts = {
            "run": self.path,
            **{key: (self.spec.get(key) or {}).get("name") for key in ("model", "prompts", "ablation")},
        }
        facts |= {"status": self.manifest.get("status"), "arrays": ", ".join(sorted(map(str, self.data.data_vars)))}
        rows = "".join(
            f'<tr><th align="left">{name}</th><td align="left">{html.escape(str(value))}</td></tr>'
            for name, value in facts.items()
            if value is not None
        )
        return f"<table>{rows}</table>{self._strongest()}"

    def _strongest(self, n: int = 3) -> str:
        """The first rows of heads.csv for each metric, as markup."""
        if not len(self.heads):
            return ""
        known = [name for name in _SHOWN if name in self.heads]
        first = self.heads.sort_values("rank", kind="stable").groupby("metric", sort=False).head(n)[known]
        return first.to_html(index=False, escape=True, na_rep="", float_format="{:.3g}".format)


def open_run(path: str | Folder, incomplete: bool = False) -> Run:
    """A finished run from its directory, or from ``s3://bucket/prefix``.

    Raises `RequestError` where there is no run, where it is damaged, and where it is not complete, unless
    `incomplete` asks for it all the same.
    """
    folder = folder_at(path)
    if not folder.is_dir():
        raise RequestError("run", path, "there is no such directory")
    manifest = read_manifest(folder)
    try:
        spec = yaml.safe_load((folder / "spec.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RequestError("run", path, f"its spec.yaml cannot be read ({type(error).__name__})") from None
    if not isinstance(spec, dict):
        raise RequestError("run", path, "its spec.yaml holds no settings")
    status = manifest["status"]
    if status != "complete" and not incomplete:
        raise RequestError("run", path, f"this run is {status}, not complete; finish it with resume={path}")
    data = read_data(folder)
    for name in manifest["files"] or {}:
        if not (folder / name).exists():
            raise RequestError("run", path, f"this run is damaged: its {name} is missing")
    tables = (read_heads(folder), read_methods(folder), read_changes(folder))
    parts = (read_parts(folder, name) for name in ("parts", "part_heads"))
    return Run(folder, spec, manifest, data, *tables, *parts)


def verify(path: str | Folder) -> None:
    """Raises `RequestError` if the arrays or the table of a complete run are not, byte for byte, what it wrote."""
    folder = folder_at(path)
    record = read_manifest(folder)
    try:
        found = digests(folder)
    except OSError as error:
        raise RequestError("run", path, f"this run is damaged: it cannot be read ({type(error).__name__})") from None
    for name, digest in (record["files"] or {}).items():
        if found.get(name) != digest:
            raise RequestError("run", path, f"this run is damaged: its {name} is not what the run wrote")

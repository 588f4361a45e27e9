"""Write the arrays, tables and views of a run, and its manifest as it goes on."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import xarray as xr

from harness import config
from harness.execute import Closed
from harness.models import Model
from harness.prompts import Prompts
from harness.results import manifest, open_run, schema, store
from harness.results.objects import Folder
from harness.study.request import Request
from harness.study.run_folder import plain
from harness.sweep import tolerance
from harness.views.draw import draw


def write_closed(folder: Folder, closed: Closed) -> None:
    """Write arrays and tables. Raises `ValueError` for a variable that the schema does not list."""
    if unlisted := schema.unknown(closed.data):
        raise ValueError(f"harness.results.schema does not list {', '.join(unlisted)}")
    store.write_data(folder, closed.data)
    for name, table in closed.tables.items():
        schema.write_table(folder, name, table)
    for path, text in closed.files.items():
        store.write_text(folder / path, text)


def draw_closed(folder: Folder) -> None:
    """Draw the report and figures of a run whose arrays and tables are written, as of a complete one: it is complete
    once they are there."""
    run = open_run(folder, incomplete=True)
    draw(replace(run, manifest={**run.manifest, "status": "complete"}))


def checks_of(data: xr.Dataset) -> dict[str, Any] | None:
    """Return all units' checks from the arrays' attributes (an earlier process's too), and quick methods' errors."""
    verified = [array.attrs for array in data.data_vars.values() if "edits_verified" in array.attrs]
    if not verified:
        return None
    attrs = data["effect"].attrs if "effect" in data else {}
    quick = {key: json.loads(attrs[key]) for key in ("errors", "screen") if key in attrs}
    off = [float(each["plain_forward_difference"]) for each in verified if "plain_forward_difference" in each]
    return {
        "edits_verified": sum(int(each["edits_verified"]) for each in verified),
        "plain_forward_difference": max(off, default=None),
        **({"method": attrs["method"], "heads_verified": int(attrs["verified"]), **quick} if quick else {}),
    }


def _checks_so_far(work: Request) -> dict[str, Any] | None:
    """Return the checks of this process so far."""
    checks = [stage.as_sweep().check for stage in work.ablating]
    if not checks:
        return None
    off = max((off for check in checks for off in check.spot_checks), default=None)
    return {"edits_verified": sum(check.fired for check in checks), "plain_forward_difference": off}


def facts(
    *,
    runner: str,
    settings: Mapping[str, Any],
    model: Model,
    prompts: Prompts,
    started: str,
    seconds: float,
    check: Mapping[str, Any] | None,
    status: str,
    other: Model | None = None,
    parent: str | None = None,
    files: Mapping[str, str] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """Return the manifest of a run with these settings, as ``spec.yaml`` holds them."""
    import torch

    return {
        "format": manifest.FORMAT,
        "status": status,
        "runner": runner,
        "parent": parent,
        "hash": config.settings_hash(runner, settings),
        "started": started,
        **manifest.environment(),
        "threads": torch.get_num_threads(),
        "device": model.device,
        "dtype": model.spec.dtype,
        "model": _identity(model)
        | {"bos": _bos(model, prompts), "chat_template": _chat(model, prompts)}
        | ({"other": _identity(other)} if other else {}),
        "prompts_sha256": prompts.sha256,
        "words": "; ".join(prompts.words_by),
        "bos_first": _bos_first(model, prompts),
        "choices": _choices(prompts),
        "seed": settings["seed"],
        "tolerance": tolerance(model),
        "intervention_check": check,
        "wall_seconds": round(seconds, 1),
        "peak_memory_gb": manifest.peak_memory_gb(),
        "files": files or {},
        "error": error,
    }


def _identity(model: Model) -> dict[str, Any]:
    """Return a model's identity: name, source, sizes, weights, tokenizer."""
    return {"name": model.name, "source": model.spec.source, **asdict(model.shape), **model.identity}


def _bos_first(model: Model, prompts: Prompts) -> int:
    """Count the prompts that begin with a BOS token."""
    return int((prompts.token_id[:, 0] == model.tokens.bos_id).sum())


def _chat(model: Model, prompts: Prompts) -> str | None:
    """Return the SHA-256 of the chat template that the prompts are in; None where they are in none."""
    return model.tokens.chat_fingerprint if getattr(prompts.spec, "chat", False) else None


def _bos(model: Model, prompts: Prompts) -> str:
    """Describe the token policy, and how many prompts begin with a BOS token where the policy adds none."""
    tokens, first = model.tokens, _bos_first(model, prompts)
    if _chat(model, prompts):
        return "the special tokens of the tokenizer's chat template, no others added"
    if not first or tokens.begins_with_bos:
        return tokens.policy
    return f"{tokens.policy}; {first} of these {len(prompts)} prompts begin with one all the same"


def _choices(prompts: Prompts) -> dict[str, int] | None:
    """Count the items of a choice, their completions, and the items with a completion that merges with its context."""
    of = prompts.choices
    if of is None:
        return None
    merged = len({*of.owner[of.merges].tolist()})
    return {"items": len(prompts), "completions": len(of.owner), "items_merged_with_context": merged}


def write_manifest(work: Request, folder: Folder, status: str, error: str | None = None) -> None:
    """Write the current ``manifest.json``."""
    before = work.before or {}
    started = datetime.fromtimestamp(work.started, UTC).isoformat(timespec="seconds")
    current = facts(
        runner=work.runner,
        settings=plain(work.spec),
        model=work.model,
        prompts=work.prompts,
        other=work.other.model if work.other else None,
        parent=before.get("parent") or work.parent,
        started=before.get("started") or started,
        seconds=(before.get("wall_seconds") or 0) + time.time() - work.started,
        check=work.checks or _checks_so_far(work),
        status=status,
        files=store.digests(folder) if status == "complete" else {},
        error=error,
    )
    manifest.write_manifest(folder, current)

"""Write the manifest of a run as it goes on."""

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import xarray as xr

from harness import config
from harness.models import Model
from harness.results import manifest, store
from harness.results.objects import Folder
from harness.study.request import Request
from harness.sweep import tolerance


def checks_of(data: xr.Dataset) -> dict[str, Any] | None:
    """Return all units' checks from the arrays' attributes (an earlier process's too), and quick methods' errors."""
    verified = [array.attrs for array in data.data_vars.values() if "edits_verified" in array.attrs]
    if not verified:
        return None
    attrs = data["effect"].attrs if "effect" in data else {}
    quick = {key: json.loads(attrs[key]) for key in ("errors", "screen") if key in attrs}
    return {
        "edits_verified": sum(int(each["edits_verified"]) for each in verified),
        "plain_forward_difference": max(float(each["plain_forward_difference"]) for each in verified),
        **({"method": attrs["method"], "heads_verified": int(attrs["verified"]), **quick} if quick else {}),
    }


def _checks_so_far(work: Request) -> dict[str, Any] | None:
    """Return the checks of this process so far."""
    checks = [stage.as_sweep().check for stage in work.ablating]
    if not checks:
        return None
    off = max((off for check in checks for off in check.spot_checks), default=None)
    return {"edits_verified": sum(check.fired for check in checks), "plain_forward_difference": off}


def _identity(model: Model) -> dict[str, Any]:
    """Return a model's identity: name, source, sizes, weights, tokenizer."""
    return {"name": model.name, "source": model.spec.source, **asdict(model.shape), **model.identity}


def _bos_first(work: Request) -> int:
    """Count the prompts that begin with a BOS token."""
    return int((work.prompts.token_id[:, 0] == work.model.tokens.bos_id).sum())


def _bos(work: Request) -> str:
    """Describe the token policy, and how many prompts begin with a BOS token where the policy adds none."""
    tokens, first = work.model.tokens, _bos_first(work)
    if not first or tokens.begins_with_bos:
        return tokens.policy
    return f"{tokens.policy}; {first} of these {len(work.prompts)} prompts begin with one all the same"


def write_manifest(work: Request, folder: Folder, status: str, error: str | None = None) -> None:
    """Write the current ``manifest.json``."""
    import torch

    model, before = work.model, work.before or {}
    started = datetime.fromtimestamp(work.started, UTC).isoformat(timespec="seconds")
    manifest.write_manifest(
        folder,
        {
            "format": manifest.FORMAT,
            "status": status,
            "runner": work.runner,
            "hash": config.spec_hash(work.runner, work.spec),
            "started": before.get("started") or started,
            **manifest.environment(),
            "threads": torch.get_num_threads(),
            "device": model.device,
            "dtype": model.spec.dtype,
            "model": _identity(model)
            | {"bos": _bos(work)}
            | ({"other": _identity(work.other.model)} if work.other else {}),
            "prompts_sha256": work.prompts.sha256,
            "words": "; ".join(work.prompts.words_by),
            "bos_first": _bos_first(work),
            "seed": work.spec.seed,
            "tolerance": tolerance(model),
            "intervention_check": work.checks or _checks_so_far(work),
            "wall_seconds": round((before.get("wall_seconds") or 0) + time.time() - work.started, 1),
            "peak_memory_gb": manifest.peak_memory_gb(),
            "files": store.digests(folder) if status == "complete" else {},
            "error": error,
        },
    )

"""Pooling of a sentence encoder's last hidden states to one vector, read from its own files in the format of
sentence-transformers (``modules.json`` and ``1_Pooling/config.json``)."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtyping import Bool, Float

from harness.config import RequestError

if TYPE_CHECKING:
    from torch import Tensor
else:  # torch takes seconds to import, and reading a config does not need it
    Tensor = Any

#: Over the last hidden states of a text's n tokens: the first token's, their mean (with √n in place of n: the same
#: direction), the maximum in each dimension, the mean with weights 1 … n, or the last token's.
Pooling = Literal["cls", "mean", "mean_sqrt_len", "max", "weightedmean", "lasttoken"]

CONFIG = "1_Pooling/config.json"
#: Config keys of each mode. `mean` is on by default, as in sentence-transformers.
_KEYS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
#: Modules that do not change the direction of the pooled vector, and so no cosine.
_HARMLESS = ("Transformer", "Pooling", "Normalize", "Dropout")


def config_of(folder: Path, name: str) -> Path | None:
    """Return the path of a model's pooling config; ``None`` if it has none and the mean is used.

    Raises `RequestError` for modules after the pooling that change the vector, and for a missing config.
    """
    listed = folder / "modules.json"
    if not listed.is_file():
        return folder / CONFIG if (folder / CONFIG).is_file() else None
    path = None
    for module in _read(listed, name, list):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _HARMLESS:
            remedy = f"its modules.json has a {kind}, which is not applied here: give its transformer alone"
            raise RequestError("model", name, remedy)
        if kind == "Pooling":
            path = folder / str(module.get("path", "")) / "config.json"
    if path is not None and not path.is_file():
        remedy = f"its modules.json names {path.relative_to(folder)}, which is not there: fetch or save it whole"
        raise RequestError("model", name, remedy)
    return path


def pooling_of(config: Path | None, name: str) -> Pooling:
    """Return the mode of a pooling config; the mean without one. Raises `RequestError` for unsupported modes."""
    if config is None:
        return "mean"
    settings = _read(config, name, dict)
    mode = settings.get("pooling_mode")
    chosen = [mode] if isinstance(mode, str) else list(mode or ())
    if not chosen:
        switches = {key: value for key, value in settings.items() if key.startswith("pooling_mode_")}
        on = {"pooling_mode_mean_tokens": True, **switches}
        chosen = [_KEYS.get(key, key.removeprefix("pooling_mode_")) for key, value in on.items() if value]
    chosen = [str(each).lower().removesuffix("_tokens") for each in chosen]
    if len(chosen) == 1 and chosen[0] in get_args(Pooling):
        return chosen[0]  # pyright: ignore[reportReturnType]
    remedy = f"it pools by {' and '.join(chosen) or 'nothing'}; known is one of {', '.join(get_args(Pooling))}"
    raise RequestError("model", name, remedy)


def _read(path: Path, name: str, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError("model", name, f"{path} cannot be read ({error})") from None
    if not isinstance(value, kind):
        raise RequestError("model", name, f"{path} is not what sentence-transformers writes: save the model again")
    return value


def pooled(
    hidden: Float[Tensor, "*copy row position d_model"], mask: Bool[Tensor, "row position"], how: Pooling
) -> Float[Tensor, "*copy row d_model"]:
    """Return the vector of each row; padding (`mask` false) is ignored."""
    import torch

    if how == "cls":
        return hidden[..., 0, :]
    if how == "lasttoken":
        return hidden[..., torch.arange(len(mask), device=mask.device), _last(mask), :]
    if how == "max":
        return hidden.masked_fill(~mask[..., None], -torch.inf).max(dim=-2).values
    weight = _weights(mask, how).to(hidden.dtype)[..., None]
    total = weight.sum(-2)
    return (hidden * weight).sum(-2) / (total.sqrt() if how == "mean_sqrt_len" else total)


def shares(
    hidden: Float[Tensor, "row position d_model"], mask: Bool[Tensor, "row position"], how: Pooling
) -> Float[Tensor, "row position"]:
    """Return the share of each row's vector that comes from each token; rows sum to 1. For `max` it is the share of
    the dimensions in which the token has the largest value."""
    import torch

    size = mask.shape[1]
    if how == "max":
        largest = hidden.masked_fill(~mask[..., None], -torch.inf).argmax(dim=-2)
        return torch.nn.functional.one_hot(largest, size).double().mean(dim=1)
    if how in ("cls", "lasttoken"):
        read = _last(mask) if how == "lasttoken" else torch.zeros(len(mask), dtype=torch.long, device=mask.device)
        return torch.nn.functional.one_hot(read, size).double()
    weight = _weights(mask, how).double()
    return weight / weight.sum(1, keepdim=True)


def _last(mask: Any) -> Any:
    """Return each row's last position."""
    return _weights(mask, "weightedmean").argmax(dim=1)


def _weights(mask: Any, how: Pooling) -> Any:
    import torch

    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return mask * place if how == "weightedmean" else mask.long()

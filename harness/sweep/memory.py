"""How much memory there is for activations, and whether it ran out."""

import psutil
import torch


def free(device: str) -> int:
    """Bytes that are free where the model is."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: torch has a class for it on an accelerator only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)

"""Pack arrays to text that a page unpacks (``assets/unpack.js``): quantised, deflated, base64."""

import base64
import zlib

import numpy as np
from jaxtyping import Float, Shaped

Packed = dict[str, object]


def pack_numbers(values: Shaped[np.ndarray, "..."]) -> Packed:
    """Pack numbers as 32-bit floats, NaN included."""
    return _pack(np.asarray(values, dtype="<f4"))


def pack_weights(weights: Float[np.ndarray, "*many query key"], causal: bool, bits: int = 8) -> Packed:
    """Pack weights from 0 to 1 as 8- or 16-bit fractions (off by at most 0.002 or 0.00001), [..., query, key].

    With ``causal`` only the entries up to the diagonal are kept, row by row.
    """
    scale = 2**bits - 1
    whole = np.rint(np.clip(weights, 0, 1) * scale).astype(f"<u{bits // 8}")
    if causal:
        query, key = np.tril_indices(weights.shape[-1])
        whole = whole[..., query, key]
    return _pack(whole)


def pack_text(text: str) -> Packed:
    """Pack a long text as the bytes of its UTF-8."""
    return _pack(np.frombuffer(text.encode(), dtype="<u1"))


def size(packed: Packed) -> int:
    """Return the number of characters in the page."""
    return len(str(packed["data"]))


def _pack(values: Shaped[np.ndarray, "..."]) -> Packed:
    data = base64.b64encode(zlib.compress(values.tobytes(), 6)).decode("ascii")
    return {"type": values.dtype.str[1:], "shape": list(values.shape), "data": data}

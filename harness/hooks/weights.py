"""The weights of an attention as matrices, and the norms that stand beside them.

Rows are read and columns are written: a stream x gives the queries x @ W_Q. TransformerLens splits a joint projection
(GPT-2's, Falcon's) into the three.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxtyping import Float

from harness.hooks import Site, attention_module, is_linear, output_projection

if TYPE_CHECKING:
    from torch import Tensor
else:  # torch takes seconds to import, and the names of inputs do not need it
    Tensor = Any

#: What a head reads from the stream: queries, keys and values.
Input = Literal["q", "k", "v"]
INPUTS: tuple[Input, ...] = get_args(Input)


def has_projections(bridge: Any, site: Site) -> bool:
    """Whether W_Q, W_K, W_V and W_O are linear modules, one each."""
    modules = [_projection(bridge, site, name) for name in INPUTS]
    return all(module is not None and is_linear(module) for module in [*modules, output_projection(bridge, site)])


def input_matrix(bridge: Any, site: Site, name: Input) -> Float[Tensor, "d_model d_out"]:
    """Return W_Q, W_K or W_V of all its heads, in single precision."""
    return _matrix(_projection(bridge, site, name))


def output_matrix(bridge: Any, site: Site) -> Float[Tensor, "d_in d_model"]:
    """Return W_O of all heads, in single precision."""
    return _matrix(output_projection(bridge, site))


def projected(bridge: Any, site: Site, name: Input, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_out"]:
    """Return what the module of W_Q, W_K or W_V, with its bias, makes of the stream `x` after the norm of the read."""
    module, norm = _projection(bridge, site, name), norm_of_read(bridge, site)
    return module((x if norm is None else norm(x))[None])[0]


def norm_of_read(bridge: Any, site: Site) -> Any | None:
    """Return the torch module of the norm between the residual stream and W_Q, W_K and W_V; OLMo 2 has none."""
    block = bridge.blocks[site.layer]
    return block.ln1.original_component if hasattr(block, "ln1") else None


def norm_of_projection(bridge: Any, site: Site, name: Input) -> Any | None:
    """Return the torch module of the norm on queries or keys (Qwen 3's), if the attention has one."""
    norm = getattr(attention_module(bridge, site), f"{name}_norm", None)
    return None if norm is None else norm.original_component


def _projection(bridge: Any, site: Site, name: Input) -> Any:
    module = getattr(attention_module(bridge, site), name, None)
    return getattr(module, "original_component", None)


def _matrix(module: Any) -> Float[Tensor, "d_in d_out"]:
    weight = module.weight.detach().float()
    return weight if type(module).__name__ == "Conv1D" else weight.T

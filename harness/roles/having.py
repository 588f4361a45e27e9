"""Which heads have which roles, as a table."""

import pandas as pd
import xarray as xr


def roles_joined(given: xr.DataArray) -> pd.DataFrame:
    """`role_given` as one row per head, its roles joined by ``;`` in the column `roles`."""
    flat = given.stack(which=[dim for dim in given.dims if dim != "role"]).transpose("which", "role")
    names = given["role"].values.astype(object)
    return flat.indexes["which"].to_frame(index=False).assign(roles=[";".join(names[row]) for row in flat.values])

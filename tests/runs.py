"""Two saved runs held against each other."""

import numpy as np

import harness


def same(run, other):
    """Bit for bit, and with the same notes."""
    one, two = harness.open_run(run).data, harness.open_run(other).data
    assert set(one) == set(two)
    for name, array in one.items():
        np.testing.assert_array_equal(array.values, two[name].values)
        assert array.attrs == two[name].attrs

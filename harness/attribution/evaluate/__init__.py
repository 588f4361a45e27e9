"""Evaluate attribution methods against measured causes.

`stage` scores each prompt by every method and cause and removes tokens in each method's order (`erasure`), over the
tokens that count (`policies`), by token or by word (`levels`); `measures` reduces this to one number per prompt with
the rank statistics of `agreement`, `method_table` adds intervals and tests, `sentence` states the result, and `heads`
adds a head's attention as a method.
"""

from harness.attribution.evaluate.agreement import kendall as kendall
from harness.attribution.evaluate.agreement import overlap as overlap
from harness.attribution.evaluate.agreement import spearman as spearman
from harness.attribution.evaluate.measures import agreement as agreement
from harness.attribution.evaluate.measures import curves as curves
from harness.attribution.evaluate.measures import shares as shares
from harness.attribution.evaluate.method_table import methods_table as methods_table
from harness.attribution.evaluate.method_table import pairs_table as pairs_table

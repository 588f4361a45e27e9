"""Evaluate attribution methods against measured causes.

`stage` scores each prompt by every method and cause and removes tokens in each method's order (`erasure`), over the
tokens that count (`policies`), by token or by word (`levels`); `statistics` reduces this to one number per prompt with
the rank statistics of `agreement`, `method_table` adds intervals and tests, `best_method` states the result, and
`top_head` adds a head's attention as a method.
"""

from harness.attribution.evaluate.agreement import kendall as kendall
from harness.attribution.evaluate.agreement import overlap as overlap
from harness.attribution.evaluate.agreement import spearman as spearman
from harness.attribution.evaluate.method_table import methods_table as methods_table
from harness.attribution.evaluate.method_table import pairs_table as pairs_table
from harness.attribution.evaluate.statistics import agreement as agreement
from harness.attribution.evaluate.statistics import curves as curves
from harness.attribution.evaluate.statistics import shares as shares

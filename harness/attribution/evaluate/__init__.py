"""Attribution methods held against measured causes.

`stage` explains each prompt by every method and cause and takes tokens away in each method's order (`erasure`), over
the tokens that count (`policies`), by token or by word (`levels`); `measures` makes one number per prompt of it with
the rankings of `agreement`, `tables` makes claims of those, `sentence` says the answer, and `heads` sets a head's
attention beside the methods.
"""

from harness.attribution.evaluate.agreement import kendall as kendall
from harness.attribution.evaluate.agreement import overlap as overlap
from harness.attribution.evaluate.agreement import spearman as spearman
from harness.attribution.evaluate.measures import agreement as agreement
from harness.attribution.evaluate.measures import curves as curves
from harness.attribution.evaluate.measures import shares as shares
from harness.attribution.evaluate.method_table import methods_table as methods_table
from harness.attribution.evaluate.method_table import pairs_table as pairs_table

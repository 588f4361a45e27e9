"""Attribution methods held against measured causes.

`stage` explains each prompt by every method and cause and takes tokens away in each method's order (`erasure`), over
the tokens that count (`policies`), by token or by word (`levels`); `measures` makes one number per prompt of it with
the rankings of `agreement`, `tables` makes claims of those, `sentence` says the answer, and `heads` sets a head's
attention beside the methods.
"""

from harness.faithfulness.agreement import kendall as kendall
from harness.faithfulness.agreement import overlap as overlap
from harness.faithfulness.agreement import spearman as spearman
from harness.faithfulness.measures import agreement as agreement
from harness.faithfulness.measures import curves as curves
from harness.faithfulness.measures import shares as shares
from harness.faithfulness.tables import methods_table as methods_table
from harness.faithfulness.tables import pairs_table as pairs_table

"""Statistics of effects: intervals, tests over all heads, planning.

Pure functions on numpy or xarray arrays: no torch, no models, no printing. One concept per file:

``columns``        an effect array to one column per head, checked
``clusters``       prompts that belong together, their sums, and how many clusters are effective
``draws``          sign patterns and subsets of clusters, all or random
``bootstrap``      the interval: half-sampling of whole clusters, accelerated
``randomisation``  p-values: sign flips around zero or at a boundary, matched null, Westfall–Young max-T
``discovery``      Benjamini–Hochberg q
``planning``       reach and power of a number of clusters, prompts needed
``ranks``          Spearman's rank correlation
``summary``        all of it, as the table `heads.csv` is made of

>>> import harness
>>> harness.stats.clusters_needed(level=0.05)
6
"""

from harness.stats.discovery import false_discovery as false_discovery
from harness.stats.planning import clusters_needed as clusters_needed
from harness.stats.planning import power as power
from harness.stats.planning import prompts_to_separate as prompts_to_separate
from harness.stats.planning import reachable as reachable
from harness.stats.ranks import correlation_interval as correlation_interval
from harness.stats.ranks import rank_correlation as rank_correlation
from harness.stats.summary import summarize as summarize

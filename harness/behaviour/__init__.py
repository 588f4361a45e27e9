"""What a model does with heads ablated: the texts it writes, the tasks it passes, and a checkpoint without them.

`writer` continues texts, `stage` is the run of `generate` and `texts` its answer in a notebook (`text_table` makes the
rows); `bake` writes an ablation into the weights; `tasks` runs lm-evaluation-harness on `task_model`.
"""

"""Edges between components: path patching from a head to a later head's query, key or value input, or to an MLP.

`edge` names edges and lists those of a request, `streams` computes the stream that enters later blocks with a sender's
z replaced, `block_run` runs one block on such streams, `receivers` turns them into the z or MLP output of a receiver,
and `stage` measures the effects. `edge_attribution` estimates all edges by gradients, `screen_stage` in units of work;
`halves` divides clusters into those that choose the measured edges and those that test them, `table` makes
``edges.csv``.
"""

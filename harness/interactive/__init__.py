"""Functions for notebooks and scripts: they compute in memory, and what they return answers like a saved run.

`compute` has the functions, `result` what they return, `make_look` makes a `harness.views.look.Look` of a model and a
text. Importing this room loads no torch: a saved run is looked at without it.
"""

"""Run tasks of lm-evaluation-harness on the clean model and with heads ablated.

python -m experiments.evaluate tasks=[arc_easy] heads=[L23H3] tasks_limit=100
python -m experiments.evaluate tasks=[mine] tasks_path=tasks 'sets={movers: [L23H3, L20H0]}' n_random_sets=5
"""

from harness.command import main

if __name__ == "__main__":
    main("evaluate")

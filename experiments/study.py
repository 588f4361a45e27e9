"""Run the main study: attention patterns, an ablation of every head, rollout, one report.

python -m experiments.study model=smollm2 prompts=ioi
"""

from harness.command import main

if __name__ == "__main__":
    main("study")

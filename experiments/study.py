"""Run the main study: attention patterns, an ablation of every head, rollout, one report.

python -m experiments.study model=smollm2 prompts=ioi
"""

from experiments._launch import launch


def main() -> None:
    launch("study")


if __name__ == "__main__":
    main()

"""The main job: cache attention, ablate every head, rollout beside it, one report.

python -m experiments.study model=smollm2 prompts=ioi
"""

from experiments._launch import launch


def main() -> None:
    launch("study")


if __name__ == "__main__":
    main()

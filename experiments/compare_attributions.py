"""Which attribution method says what a prediction really came from: every method against measured causes.

python -m experiments.compare_attributions model=smollm2 prompts=ioi prompts.n=8
"""

from experiments._launch import launch


def main() -> None:
    launch("compare_attributions")


if __name__ == "__main__":
    main()

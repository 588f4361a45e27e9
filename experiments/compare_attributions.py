"""Compare attribution methods with measured causal effects.

python -m experiments.compare_attributions model=smollm2 prompts=ioi prompts.n=8
"""

from experiments._launch import launch


def main() -> None:
    launch("compare_attributions")


if __name__ == "__main__":
    main()

"""Ablate heads, one at a time, by layer or in sets, and measure their effects.

python -m experiments.ablate_heads heads=[L5H1,L7] metrics=[loss,kl]
"""

from experiments._launch import launch


def main() -> None:
    launch("ablate_heads")


if __name__ == "__main__":
    main()

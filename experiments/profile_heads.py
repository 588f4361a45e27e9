"""Which roles each head has, beyond chance, and what ablating the heads of a role together does.

python -m experiments.profile_heads model=smollm2 prompts=prose
"""

from experiments._launch import launch


def main() -> None:
    launch("profile_heads")


if __name__ == "__main__":
    main()

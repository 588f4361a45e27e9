"""Score the roles of each head against chance, and ablate the heads of a role together.

python -m experiments.profile_heads model=smollm2 prompts=prose
"""

from experiments._launch import launch


def main() -> None:
    launch("profile_heads")


if __name__ == "__main__":
    main()

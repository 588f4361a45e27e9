"""Cache the attention patterns of each head, and rollout.

python -m experiments.cache_attention model=smollm2 prompts=induction
"""

from experiments._launch import launch


def main() -> None:
    launch("cache_attention")


if __name__ == "__main__":
    main()

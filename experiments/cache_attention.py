"""Cache the attention patterns of each head, and rollout.

python -m experiments.cache_attention model=smollm2 prompts=induction
"""

from harness.command import main

if __name__ == "__main__":
    main("cache_attention")

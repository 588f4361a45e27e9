"""Ablate heads, one at a time, by layer or in sets, and measure their effects.

python -m experiments.ablate_heads heads=[L5H1,L7] metrics=[loss,kl]
"""

from harness.command import main

if __name__ == "__main__":
    main("ablate_heads")

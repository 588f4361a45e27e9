"""Score the roles of each head against chance, and ablate the heads of a role together.

python -m experiments.profile_heads model=smollm2 prompts=prose
"""

from harness.command import main

if __name__ == "__main__":
    main("profile_heads")

"""Compare attribution methods with measured causal effects.

python -m experiments.compare_attributions model=smollm2 prompts=ioi prompts.n=8
"""

from harness.command import main

if __name__ == "__main__":
    main("compare_attributions")

"""Compare two models on the same prompts: patterns, effects and roles of heads.

python -m experiments.compare_models model=smollm2 compare.model.dtype=bfloat16
python -m experiments.compare_models model=path model.path=/models/base compare.model.path=/models/tuned
python -m experiments.compare_models model=pythia compare.model.name=gpt2 prompts=prose
"""

from harness.command import main

if __name__ == "__main__":
    main("compare_models")

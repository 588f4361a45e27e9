"""Save a checkpoint with heads ablated in its weights, as an ordinary Hugging Face folder.

python -m experiments.bake to=/tmp/without heads=[L23H3]
python -m experiments.bake to=/tmp/meant heads=[L23H3,L20] ablation=mean ablation.means=pooled prompts=prose
"""

from harness.command import main

if __name__ == "__main__":
    main("bake")

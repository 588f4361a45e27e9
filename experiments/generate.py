"""Continue prompts with heads ablated, beside the clean model's text.

python -m experiments.generate heads=[L23H3] prompts.n=4
"""

from harness.command import main

if __name__ == "__main__":
    main("generate")

"""Make a card of each important or named head: what it reads and writes, and what later heads do about it.

python -m experiments.explain_heads heads=[L23H3]
"""

from harness.command import main

if __name__ == "__main__":
    main("explain_heads")

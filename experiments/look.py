"""What every head attends to in a sentence, or in a pair, as one page.

python -m experiments.look text="The quick brown fox jumps over the lazy dog"
python -m experiments.look model=minilm text="The dog chased the cat" pair="It ran away" layer=3
"""

from harness.command import main

if __name__ == "__main__":
    main("look")

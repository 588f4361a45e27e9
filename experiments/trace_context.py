"""Trace an answer to the segments of a long context, by attention and by ablation.

python -m experiments.trace_context prompts.path=context.json
"""

from harness.command import main

if __name__ == "__main__":
    main("trace_context")

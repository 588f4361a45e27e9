"""Trace an answer to the segments of a long context, by attention and by ablation.

python -m experiments.trace_context prompts.path=context.json
"""

from experiments._launch import launch


def main() -> None:
    launch("trace_context")


if __name__ == "__main__":
    main()

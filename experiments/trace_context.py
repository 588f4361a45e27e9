"""Which part of a long context an answer used: what each part gets of the attention, and what it costs to lose it.

python -m experiments.trace_context prompts.path=context.json
"""

from experiments._launch import launch


def main() -> None:
    launch("trace_context")


if __name__ == "__main__":
    main()

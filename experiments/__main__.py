"""All runners under one name: ``python -m experiments RUNNER [key=value …]``, and ``--help`` lists them."""

from harness.command import main

if __name__ == "__main__":
    main()

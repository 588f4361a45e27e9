"""List the runs in a store, newest first, or delete runs by name.

python -m experiments.list where.model=smollm2 where.status=complete
python -m experiments.list delete=[study/20260101-120000-0123abcd] confirm=true
"""

from harness.command import main

if __name__ == "__main__":
    main("list")

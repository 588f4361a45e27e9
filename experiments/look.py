"""What every head attends to in a sentence, or in a pair, as one page.

python -m experiments.look text="The quick brown fox jumps over the lazy dog"
python -m experiments.look model=minilm text="The dog chased the cat" pair="It ran away" layer=3
"""

import time
from typing import TYPE_CHECKING, Any

from experiments._launch import main as launch
from harness import config

if TYPE_CHECKING:
    from harness.results.objects import Folder


def main() -> None:
    launch("look", page)


def page(values: dict[str, Any]) -> "Folder":
    """The page's path."""
    spec = config.parse(config.LookSpec, values)
    from harness.interactive.make_look import look
    from harness.models import load_model
    from harness.results import store
    from harness.results.objects import folder_at

    model = load_model(spec.model)
    seen = look(model, spec.text, spec.pair, target=spec.target, level=spec.level)
    path = folder_at(spec.store) / "look" / f"{time.strftime('%Y%m%d-%H%M%S')}.html"
    store.write_text(path, seen.grid(spec.layer).html)
    return path


if __name__ == "__main__":
    main()

"""The notebooks as pages: that of a saved run is executed when the site is built, that of SmolLM2, which takes a
minute, by ``python docs/site/notebooks.py``, and its page is committed."""

import base64
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pictures

ROOT = Path(__file__).parents[2]


def markdown_of(notebook: Any) -> str:
    """A notebook as Markdown, its pictures in the page."""
    from nbconvert import MarkdownExporter

    body, resources = MarkdownExporter().from_notebook_node(notebook)
    for name, content in resources.get("outputs", {}).items():
        body = body.replace(f"({name})", f"(data:image/png;base64,{base64.b64encode(content).decode()})")
    return re.sub(r"(?s)<style scoped>.*?</style>\n", "", body)  # pandas's own, of its tables


def executed(name: str, note: str, **environment: str) -> str:
    """A notebook as Markdown with its outputs, a note beneath its title; `environment` is that of its kernel."""
    import nbformat
    from nbclient import NotebookClient

    notebook, place = nbformat.read(ROOT / "experiments/notebooks" / name, as_version=4), tempfile.mkdtemp()
    try:
        paths = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": place}
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": place}})
        client.execute(env={**os.environ, **paths, **environment})
        text = markdown_of(notebook).replace(place, "…")
    finally:
        shutil.rmtree(place)
    return text.replace("\n", f"\n\n!!! note\n    {note}\n", 1)


def inspect_run() -> str:
    """The notebook about a saved run, executed on a study of the planted model that is made for it."""
    run = str(pictures.run(pictures.STUDY))
    note = "Executed on a small study of the planted model (`experiment=planted prompts.n=8`)."
    return executed("inspect_run.ipynb", note, HARNESS_RUN=run).replace(run, "results/study/…")


def question_to_claim() -> tuple[str, dict[str, bytes]]:
    """The notebook from a question to a claim, executed on SmolLM2, and its pictures by their names in `docs/`.

    A view, which carries half a megabyte of scripts, is left to the notebook.
    """
    text = executed("question_to_claim.ipynb", "Executed as it stands; a test compares what it prints.")
    left_out = "*In the notebook the view stands here.*"
    text = re.sub(r"(?s)<iframe sandbox=.*?</script>", lambda _: left_out, text)
    files: dict[str, bytes] = {}

    def named(match: re.Match[str]) -> str:
        name = f"assets/question_to_claim_{len(files) + 1}.png"
        files[name] = base64.b64decode(match[1])
        return name

    text = re.sub(r"data:image/png;base64,([\w+/=]+)", named, text)
    return re.sub(r"[ \t]+$", "", text, flags=re.M), files


if __name__ == "__main__":
    page, pictures_of_page = question_to_claim()
    for path, content in {"question_to_claim.md": page.rstrip().encode() + b"\n", **pictures_of_page}.items():
        (ROOT / "docs" / path).write_bytes(content)

"""The notebooks as pages, executed when the site is built."""

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


def question_to_claim() -> str:
    """The notebook from a question to a claim, executed on SmolLM2."""
    return executed("question_to_claim.ipynb", "Executed as it stands when this page was built.")


def inspect_run() -> str:
    """The notebook about a saved run, executed on a study of the planted model that is made for it."""
    run = str(pictures.run(pictures.STUDY))
    note = "Executed on a small study of the planted model (`experiment=planted prompts.n=12`)."
    return executed("inspect_run.ipynb", note, HARNESS_RUN=run).replace(run, "results/study/…")

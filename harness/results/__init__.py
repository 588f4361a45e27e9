"""Run directories, written by a run and read without the model and without torch.

`schema` lists the variables and tables of a run, `run` reads them. `store` writes units and arrays atomically (in an
object store with `objects` and `lease`), and `manifest` records everything that decides the numbers.

>>> import harness
>>> sorted(harness.results.schema.TABLES)[:3]
['activations', 'changes', 'edges']
"""

from harness.config import RequestError
from harness.results.manifest import read_manifest
from harness.results.objects import Folder, folder_at
from harness.results.run import Run as Run
from harness.results.schema import TableName, read_table
from harness.results.settings import read_settings
from harness.results.store import digests, read_data


def open_run(path: str | Folder, incomplete: bool = False) -> Run:
    """Open a finished run from its directory, or from ``s3://bucket/prefix``.

    Raises `RequestError` where there is no run, where it is damaged, and, unless `incomplete`, where it is not
    complete.

    >>> import tempfile
    >>> import harness
    >>> model = harness.load_model("planted")
    >>> effects = harness.ablate_heads(model, harness.load_prompts("induction", model, n=4), metrics="loss")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = effects.save(f"{folder}/mine")
    ...     heads = harness.open_run(f"{folder}/mine").top_heads("loss", 2)
    >>> {*heads} == {head for planted in model.truth.values() for head in planted}
    True
    """
    folder = folder_at(path)
    if not folder.is_dir():
        raise RequestError("run", path, "there is no such directory")
    manifest = read_manifest(folder)
    spec = read_settings(folder)
    status = manifest["status"]
    if status != "complete" and not incomplete:
        raise RequestError("run", path, f"this run is {status}, not complete; finish it with resume={path}")
    data = read_data(folder)
    for name in manifest["files"] or {}:
        if not (folder / name).exists():
            raise RequestError("run", path, f"this run is damaged: its {name} is missing")
    names: tuple[TableName, ...] = (
        *("heads", "methods", "changes", "parts", "part_heads", "texts", "tasks", "edges", "activations"),
    )
    tables = (read_table(folder, name) for name in names)
    return Run(folder, spec, manifest, data, *tables)


def verify(path: str | Folder) -> None:
    """Raise `RequestError` if the arrays or tables of a complete run differ from their checksums."""
    folder = folder_at(path)
    record = read_manifest(folder)
    try:
        current = digests(folder)
    except OSError as error:
        raise RequestError("run", path, f"this run is damaged: it cannot be read ({type(error).__name__})") from None
    for name, digest in (record["files"] or {}).items():
        if current.get(name) != digest:
            raise RequestError("run", path, f"this run is damaged: its {name} is not what the run wrote")

"""ESLint, through the user's own npm: exact versions by the lock file of ``tests/js``, kept between runs.

Nothing of it is installed in the project; `tests/test_page_code.py` runs it on the page's scripts.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from filelock import FileLock

FOLDER = Path(__file__).parent / "js"


def linter() -> Path | None:
    """Return the folder ``node_modules`` with ESLint, or None where npm is missing or cannot fetch it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-harness" / "tests"
    lock = FOLDER / "package-lock.json"
    place = cache / f"eslint-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    modules = place / "node_modules"
    npm = shutil.which("npm")
    if npm is None and not modules.is_dir():
        return None
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if modules.is_dir():
            return modules
        fresh = place.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, fresh)
        command = [str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        if subprocess.run(command, cwd=fresh, capture_output=True, timeout=180).returncode:
            return None
        fresh.rename(place)
    return modules

"""axe-core, the accessibility checker, through the user's own npm: one exact version, checked, kept between runs.

Nothing of it is installed or committed; `tests/test_browser.py` runs it in the page.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

VERSION = "4.10.3"
SHA256 = "0f2b4d7dcdf7d1219df8d1959ad68e565f51d14c3f0d88bb71cd59abeb956292"


def axe_script() -> str | None:
    """The checker's script, or None where npm is not there or cannot fetch it. Raises ValueError if what came is not
    what was asked for."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attention-harness" / "tests"
    packed = folder / f"axe-core-{VERSION}.tgz"
    if not packed.is_file():
        npm = shutil.which("npm")
        if npm is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", f"axe-core@{VERSION}", "--silent", "--pack-destination", str(folder)]
        if subprocess.run(command, capture_output=True, timeout=120).returncode:
            return None
    content = packed.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        packed.unlink()
        raise ValueError(f"{packed.name} is not axe-core {VERSION}: its checksum is another")
    with tarfile.open(packed) as archive:
        script = archive.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()

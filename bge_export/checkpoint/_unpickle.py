"""A program of its own: reads one pickle of weights and writes its tensors as safetensors.

`checkpoint.unpickling` starts it. It imports nothing of the package. torch's restricted unpickler builds tensors and
nothing else (`weights_only`); should a pickle get round that, the process has no network, starts no other process,
opens no file to write, and has no more memory and time than weights of that size need.
"""

import os
import sys
from pathlib import Path

REFUSED = 4
"""Exit status for a file that is not a plain table of tensors; the reason is printed."""

MEMORY_FACTOR = 4
"""Memory in sizes of the pickle: its tensors as they are read, and the copies that are written."""

SPARE_BYTES = 1 << 30
LEAST_SECONDS = 120
BYTES_A_SECOND = 20 << 20
"""Slower than any disk that holds a checkpoint."""

BLOCKED = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.link", "os.symlink", "os.truncate",
    "os.putenv", "os.kill", "pty.", "shutil.", "tempfile.", "ctypes.dlopen", "winreg.", "webbrowser.",
)  # fmt: skip
"""Beginnings of the audit events that are refused; reading weights causes none of them."""


ADVICE = ("Weights only load failed", "Please file an issue", "Check the documentation")
"""Beginnings of lines in torch's messages that name no cause."""


class NotWeights(Exception):
    """The file holds something else than a table of tensors."""


def confine(size: int) -> None:
    """Take network, processes, writing, memory and time away from this process, as far as the system lets one.

    Args:
        size: bytes of the pickle.
    """
    _limit(size)
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Raise PermissionError for an audit event that reading weights does not cause."""
    if event.startswith(BLOCKED):
        raise PermissionError(f"{event} is refused while a pickle is read")

    if event == "open":
        mode, flags = arguments[1], arguments[2]
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        if writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            raise PermissionError("opening a file to write is refused while a pickle is read")


def _limit(size: int) -> None:
    """Limit memory, CPU time and written bytes where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return

    limits = {
        resource.RLIMIT_CPU: LEAST_SECONDS + size // BYTES_A_SECOND,
        resource.RLIMIT_FSIZE: 2 * size + SPARE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    # What the libraries have mapped already comes on top.
    statm = Path("/proc/self/statm")
    if statm.is_file():
        mapped = int(statm.read_text("ascii").split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = mapped + MEMORY_FACTOR * size + SPARE_BYTES

    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def convert(source: Path, target: Path) -> None:
    """Write the tensors of a pickle as safetensors; each tensor is a copy of its own, in the pickle's precision.

    Raises:
        NotWeights: it holds anything but dense tensors under names.
    """
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    confine(source.stat().st_size)

    loaded = torch.load(source, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict) or not loaded:
        raise NotWeights(f"it holds {type(loaded).__name__} in place of tensors under names")

    for name, tensor in loaded.items():
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
        if not isinstance(name, str) or not plain:
            raise NotWeights(f"{name!r} is not a dense tensor")

    # One at a time: tied tensors share their memory, which safetensors does not hold.
    for name in list(loaded):
        loaded[name] = loaded[name].detach().clone().contiguous()
    save_file(loaded, target, metadata={"format": "pt"})


def main(source: str, target: str) -> int:
    """Convert a file; print the reason if it is refused."""
    try:
        convert(Path(source), Path(target))
    except ImportError as error:
        sys.stdout.write(f"{error}\n")  # the process that started this one reads it
        return 1
    except Exception as error:  # noqa: BLE001 - whatever a hostile file causes is a reason to refuse it
        sys.stdout.write(f"{_reason(error)}\n")
        return REFUSED
    return 0


def _reason(error: Exception) -> str:
    """Return the line of torch's message that names the cause, without its advice."""
    lines = [line.rpartition("WeightsUnpickler error:")[2].strip() for line in str(error).splitlines()]
    causes = [line for line in lines if line and not line.startswith(ADVICE)]
    return causes[0].rstrip(" .") if causes else type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

"""Finds and prepares torch devices for the runtimes that use torch."""

from collections.abc import Mapping

from bge_export.errors import DeviceUnavailable, MissingLibrary

DEVICES = ("cpu", "cuda", "mps")


def torch_devices() -> Mapping[str, str | None]:
    """Return each device -> None if it is usable, else the reason why it is not."""
    try:
        import torch
    except ImportError:
        return dict.fromkeys(DEVICES, str(MissingLibrary("torch", "export", "this runtime")))

    cuda = None if torch.cuda.is_available() else "torch finds no CUDA device"
    if torch.version.cuda is None and cuda:
        cuda = "this build of torch has no CUDA"

    return {
        "cpu": None,
        "cuda": cuda,
        "mps": None if torch.backends.mps.is_available() else "torch finds no MPS device",
    }


def limit_threads(threads: int) -> None:
    """Limit torch to the given number of threads.

    Raises:
        MissingLibrary: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingLibrary("torch", "export", "exporting") from error
    torch.set_num_threads(threads)


def open_device(device: str, threads: int) -> Mapping[str, str]:
    """Prepare torch for a device, with full float32 precision; return facts to record.

    Raises:
        DeviceUnavailable: the device is not usable.
    """
    reason = torch_devices().get(device, f"torch has no device of that name here; it knows {', '.join(DEVICES)}")
    if reason is not None:
        raise DeviceUnavailable(f"torch cannot run on {device!r}: {reason}")
    import torch

    torch.set_num_threads(threads)

    # TF32 silently rounds the inputs of float32 products to 11 bits.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {"torch": torch.__version__, "device": name, "tf32": "off"}

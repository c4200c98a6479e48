"""The step of a build that writes the model card, from manifest and report."""

from dataclasses import dataclass

from bge_export.bundle.foreign import is_generated_card
from bge_export.bundle.integrity import CARD
from bge_export.bundle.staging import replaced_file
from bge_export.commands.building.job import Job, Look, Standing
from bge_export.commands.measuring import read_policy
from bge_export.publish.card import card_text
from bge_export.publish.facts import CardFacts


@dataclass(frozen=True)
class CardStep:
    """The card; one that a user wrote stays."""

    job: Job
    name = "card"

    def look(self, standing: Standing, pending: frozenset[str]) -> Look:
        """Return whether the card says what it would say now."""
        path = standing.folder / CARD
        if path.exists() and not is_generated_card(path):
            return Look("keep", "it is your own")
        if pending:
            return Look("make", "what it shows changes")
        if not path.exists():
            return Look("make", "not written yet")

        same = path.read_text("utf-8", errors="replace") == self._text(standing)
        return Look("keep", "it says the same") if same else Look("make", "what it shows has changed")

    def make(self, standing: Standing) -> tuple[str, ...]:
        """Write the card."""
        with replaced_file(standing.folder, CARD) as temporary:
            temporary.write_text(self._text(standing), "utf-8")
        return ()

    def _text(self, standing: Standing) -> str:
        manifest = standing.manifest
        if manifest is None:
            return ""

        policy = read_policy(self.job.recipe.proof.thresholds)
        return card_text(standing.folder, manifest, facts_of_recipe(self.job), standing.report, policy)


def facts_of_recipe(job: Job) -> CardFacts:
    """Return what the card says besides manifest and report, as the recipe says it."""
    recipe = job.recipe
    parts = (recipe.card, recipe.publish, recipe.transformersjs)
    named = [part.repository for part in parts if part is not None and part.repository is not None]
    licenses = [part.license for part in (recipe.card, recipe.transformersjs) if part is not None and part.license]

    repository = named[0] if named else f"ORGANISATION/{job.checkpoint.source.rpartition('/')[2]}"
    license_name = licenses[0] if licenses else None
    return CardFacts(repository, license_name, clients=recipe.transformersjs is not None)


def card_steps(job: Job) -> list[CardStep]:
    """Return the step, if the recipe wants a card."""
    recipe = job.recipe
    wanted = recipe.card is not None or recipe.publish is not None or recipe.transformersjs is not None
    return [CardStep(job)] if wanted else []

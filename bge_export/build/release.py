"""What a recipe says of a release besides its export: texts of your own, scores, the model card, and publishing.

Only `bge-export build` does these; an export that left them out unasked would make something else than was written.
"""

from typing import Annotated

from pydantic import Field

from bge_export.build.part import AnyPath, Part


class OwnTexts(Part):
    """Texts of your own, measured besides the package's; their report is `parity-texts.json` in the folder.

    Attributes:
        file: the texts: .txt, .jsonl, .tsv or .csv.
        column: the column of a .tsv or .csv file that holds them.
    """

    file: AnyPath
    column: str | None = None


class Evaluation(Part):
    """Task scores; they are written to `FOLDER.scores.json`, and judge nothing.

    Attributes:
        pairs: files of scored sentence pairs, .tsv.
        lanes: the runtimes and devices to embed with.
    """

    pairs: Annotated[tuple[AnyPath, ...], Field(min_length=1, strict=False)]
    lanes: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("onnxruntime:cpu",)


class Card(Part):
    """The model card.

    Attributes:
        repository: the repository that its examples name; by default the one that is published to.
        license: the checkpoint's licence.
    """

    repository: str | None = None
    license: str | None = None


class Publishing(Part):
    """Where the folder is published, if the build is asked to.

    Attributes:
        repository: the repository, ORG/NAME.
        create_pr: whether the files are proposed in a pull request.
        private: whether a repository that does not exist yet is created for its owner alone.
        remove_others: whether files of the repository that nothing proves are removed.
    """

    repository: str
    create_pr: bool = False
    private: bool = False
    remove_others: bool = False

"""A recipe says the whole of an export; its file is read strictly, and written as it is read."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bge_export.build.recipe import JavaScriptFolder, Output, ProofOptions, Recipe, Source
from bge_export.build.recipe_file import read_recipe, recipe_toml, write_recipe
from bge_export.build.release import Card, Evaluation, OwnTexts, Publishing
from bge_export.bundle.manifest import read_manifest
from bge_export.cli import run
from bge_export.commands import Exported, export
from bge_export.contracts import Target
from bge_export.errors import OutputError, UsageError
from bge_export.exporters import find_exporter, format_names
from bge_export.precision.int8_options import Int8Options

LEAST = 'targets = ["onnx:fp32"]\n'


def file(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, "utf-8")
    return path


def models(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of each model file of a folder."""
    return {name: (folder / name).read_bytes() for model in read_manifest(folder).models for name in model.files}


def test_a_recipe_is_read(tmp_path: Path) -> None:
    text = """
        targets = ["onnx:int8", "openvino:fp16"]
        beside = ["onnx:fp32"]

        [source]
        model = "BAAI/bge-small-en"
        revision = "main"
        pooling = "cls"

        [output]
        folder = "out"
        overwrite = true

        [proof]
        thresholds = "limits.toml"
        require = ["onnx-int8@onnxruntime:cpu"]

        [options.openvino]
        static_shape = [1, 512]

        [int8]
        calibration = "texts.txt"
        min_cosine = 0.999

        [transformersjs]
        repository = "somebody/else"

        [texts]
        file = "own.tsv"
        column = "text"

        [evaluation]
        pairs = ["stsb/test.tsv"]

        [card]
        license = "mit"

        [publish]
        repository = "ORG/NAME"
        create_pr = true
    """
    assert read_recipe(file(tmp_path, text)) == Recipe(
        targets=(Target("onnx", "int8"), Target("openvino", "fp16")),
        beside=(Target("onnx", "fp32"),),
        source=Source(model="BAAI/bge-small-en", revision="main", pooling="cls"),
        output=Output(folder=tmp_path / "out", overwrite=True),
        proof=ProofOptions(thresholds=tmp_path / "limits.toml", require=("onnx-int8@onnxruntime:cpu",)),
        options={"openvino": {"static_shape": [1, 512]}},
        int8=Int8Options(calibration=tmp_path / "texts.txt", min_cosine=0.999),
        transformersjs=JavaScriptFolder(repository="somebody/else"),
        texts=OwnTexts(file=tmp_path / "own.tsv", column="text"),
        evaluation=Evaluation(pairs=(tmp_path / "stsb/test.tsv",), lanes=("onnxruntime:cpu",)),
        card=Card(license="mit"),
        publish=Publishing(repository="ORG/NAME", create_pr=True),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "targets: Field required"),
        ("targets = []", "at least 1 item"),
        ('targets = "onnx:fp32"', "targets: Input should be a valid tuple"),
        ('targets = ["onnx"]', "targets.0: 'onnx' is not a target"),
        ('targets = ["onnx:fp32", 3]', "targets.1: 3 is not a target"),
        ('targets = [":fp32"]', "is not a target"),
        (f"{LEAST}colour = 1", "colour: there is no such key: targets, source, beside"),
        (f"{LEAST}[output]\nplace = 'x'", r"output\.place: there is no such key: folder, overwrite"),
        (f"{LEAST}[output]\noverwrite = 'yes'", r"output\.overwrite: Input should be a valid boolean"),
        (f"{LEAST}[output]\noverwrite = 1", r"output\.overwrite: Input should be a valid boolean"),
        (f"{LEAST}[source]\nmodel = 3", r"source\.model: Input should be a valid string"),
        (f"{LEAST}[source]\npooling = 'max'", r"source\.pooling: Input should be 'cls'"),
        (f"{LEAST}[int8]\nmin_cosine = 0.9", "int8: no target is int8"),
        ('targets = ["onnx:int8"]\n[int8]\nmin_cosine = 1.5', r"int8\.min_cosine: .* less than or equal to 1"),
        (
            'targets = ["onnx:int8"]\n[int8]\ncosine = 0.9',
            r"int8\.cosine: .* did you mean 'min_cosine'",
        ),
        (f"{LEAST}[options.openvino]\nstatic_shape = [1, 2]", "no target is of this format, only: onnx"),
        (f"{LEAST}[transformersjs]\nweights = 'no'", r"transformersjs\.weights: Input should be a valid boolean"),
        (f"{LEAST}target = []", "target: there is no such key; did you mean 'targets'"),
        (f"{LEAST}[evaluation]\npairs = []", r"evaluation\.pairs: .* at least 1 item"),
        (f"{LEAST}[publish]\nprivate = true", r"publish\.repository: Field required"),
        (f"{LEAST}[texts]\nfile = 'a.txt'\ncolum = 'b'", r"texts\.colum: .* did you mean 'column'"),
        (f"{LEAST}[proof]\nrequires = ['a:b']", r"proof\.requires: .* did you mean 'require'"),
        ("targets = [", "is not valid TOML"),
        (f"x{'.x' * 200} = 1", "more than 100 dots"),
    ],
)
def test_whatever_is_no_recipe_is_refused_with_its_key(text: str, reason: str, tmp_path: Path) -> None:
    path = file(tmp_path, text)
    with pytest.raises(UsageError, match=reason) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml does not exist. Give the path of a recipe"):
        read_recipe(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Recipe(targets=(Target("paper", "fp32"),)), "no 'paper' among the exporters"),
        (Recipe(targets=(Target("onnx", "fp99"),)), "onnx has no precision 'fp99'"),
        (Recipe(targets=(Target("onnx", "fp32"),), beside=(Target("openvino", "q4"),)), "openvino has no precision"),
        (Recipe(targets=(Target("onnx", "fp32"),), options={"onnx": {"colour": 1}}), "onnx has no option 'colour'"),
        (
            Recipe(targets=(Target("onnx", "fp32"),), options={"onnx": {"sentence_embedding": "yes"}}),
            "onnx: sentence_embedding is 'yes': Input should be a valid boolean",
        ),
        (
            Recipe(targets=(Target("openvino", "fp32"),), options={"openvino": {"static_shape": "1x512"}}),
            "openvino: static_shape is '1x512'",
        ),
    ],
)
def test_what_no_exporter_takes_is_refused_before_anything_is_opened(recipe: Recipe, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        export(recipe.model_copy(update={"source": Source(model="/nowhere")}))


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("[proof]\nrequire = ['onnxruntime:cpu']", "proof.require"),
        ("[texts]\nfile = 'own.txt'", "texts"),
        ("[evaluation]\npairs = ['a.tsv']", "evaluation"),
        ("[card]", "card"),
        ("[publish]\nrepository = 'ORG/NAME'", "publish"),
    ],
)
def test_an_export_does_not_leave_out_unasked_what_only_a_build_does(table: str, key: str, tmp_path: Path) -> None:
    recipe = read_recipe(file(tmp_path, f"{LEAST}[source]\nmodel = '/nowhere'\n{table}"))
    with pytest.raises(UsageError, match=rf"^{key}: an export does not do this"):
        export(recipe)


names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
paths = st.none() | names.filter(lambda name: "\0" not in name).map(lambda name: Path("/of") / name.replace("/", "_"))
recipes = st.builds(
    Recipe,
    targets=st.lists(st.builds(Target, st.sampled_from(["onnx", "openvino"]), st.just("int8")), min_size=1).map(tuple),
    source=st.builds(Source, model=names.filter(lambda name: "\0" not in name), revision=st.none() | names),
    output=st.builds(Output, folder=paths, overwrite=st.booleans()),
    proof=st.builds(ProofOptions, check=st.booleans(), thresholds=paths),
    int8=st.none() | st.builds(Int8Options, calibration=paths, min_cosine=st.none() | st.floats(0.5, 1.0)),
    transformersjs=st.none() | st.builds(JavaScriptFolder, weights=st.booleans(), license=st.none() | names),
    texts=st.none() | st.builds(OwnTexts, file=paths.filter(bool), column=st.none() | names),
    evaluation=st.none() | st.builds(Evaluation, pairs=st.lists(paths.filter(bool), min_size=1).map(tuple)),
    publish=st.none() | st.builds(Publishing, repository=names, private=st.booleans()),
)


@given(recipe=recipes)
def test_a_recipe_that_was_written_is_read_as_the_same(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = file(tmp_path_factory.mktemp("recipe"), recipe_toml(recipe))
    read = read_recipe(path)
    assert read.model_copy(update={"source": recipe.source}) == recipe


def test_a_written_recipe_says_paths_from_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model", "recipes"):
        (tmp_path / name).mkdir()
    recipe = Recipe(targets=(Target("onnx", "fp32"),), source=Source(model="model"), output=Output(folder=Path("out")))

    path = Path("recipes/recipe.toml")
    write_recipe(recipe, path)
    read = read_recipe(path)
    assert Path(read.source.model).resolve() == tmp_path / "model"
    assert read.output.folder is not None
    assert read.output.folder.resolve() == tmp_path / "out"

    with pytest.raises(OutputError, match="exists already"):
        write_recipe(recipe, path)


@pytest.fixture(scope="module")
def together(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Three formats of the embedded checkpoint in one folder, by the general command's recipe."""
    folder = tmp_path_factory.mktemp("together")
    recipe = folder / "recipe.toml"
    targets = [word for name in ("openvino:fp16", "onnx:fp32", "torchscript:fp32") for word in ("--to", name)]
    assert run(["export", str(tiny), *targets, "-o", str(folder / "out"), "--write-recipe", str(recipe)]) == 0
    assert not (folder / "out").exists()
    return export(read_recipe(recipe))


def test_several_formats_are_proven_in_one_folder(together: Exported) -> None:
    assert together.proof is not None
    assert together.proof.verdict.passed
    written = [model.target for model in read_manifest(together.folder).models]
    assert sorted(written) == ["onnx-fp32", "openvino-fp16", "torchscript-fp32"]
    assert {lane.target for lane in together.proof.report.lanes if lane.measured} == set(written)


@pytest.mark.parametrize(
    "command", [("onnx",), ("openvino", "--precision", "fp16"), ("torchscript",)], ids=lambda words: words[0]
)
def test_a_short_name_writes_the_same_bytes(
    command: tuple[str, ...], together: Exported, tiny: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run([command[0], str(tiny), *command[1:], "-o", str(out), "--no-check"]) == 0
    alone = models(out)
    assert alone
    assert {name: models(together.folder)[name] for name in alone} == alone


def test_what_stands_beside_is_written_unless_it_is_there(tiny: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        targets=(Target("onnx", "fp16"),),
        beside=(Target("onnx", "fp32"),),
        source=Source(model=str(tiny)),
        output=Output(folder=tmp_path / "out"),
        proof=ProofOptions(check=False),
    )
    export(recipe)
    assert sorted(models(tmp_path / "out")) == ["onnx/model.onnx", "onnx/model_fp16.onnx"]

    again = recipe.model_copy(update={"output": Output(folder=tmp_path / "out", overwrite=True)})
    export(again)
    assert read_manifest(tmp_path / "out").models[0].target == "onnx-fp32"
    assert len(read_manifest(tmp_path / "out").models) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["export"],
        ["export", "model"],
        ["export", "--to", "onnx:fp32"],
        ["export", "--recipe", "recipe.toml", "-o", "out"],
        ["export", "model", "--recipe", "recipe.toml"],
        ["export", "--recipe", "recipe.toml", "--to", "onnx:fp32"],
        ["export", "--recipe", "recipe.toml", "--no-check"],
        ["export", "--recipe", "recipe.toml", "--cls-only"],
        ["export", "--recipe", "recipe.toml", "--with-weights"],
        ["export", "model", "--to", "onnx:fp32", "--min-cosine", "0.9"],
        ["export", "model", "--to", "onnx"],
    ],
)
def test_a_command_that_says_too_little_or_too_much_is_misused(words: list[str]) -> None:
    assert run(words) == 2


def test_the_page_shows_every_key(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/recipe.md").read_text("utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    recipe = read_recipe(file(tmp_path, block))

    assert recipe.model_fields_set == set(Recipe.model_fields)
    parts = [getattr(recipe, name) for name in Recipe.model_fields if name not in ("targets", "beside", "options")]
    for part in parts:
        assert part is not None
        assert part.model_fields_set == set(type(part).model_fields)

    known = {name: {field.name for field in fields(type(find_exporter(name)))} - {"int8"} for name in format_names()}
    assert {name: set(options) | {"sentence_embedding"} for name, options in recipe.options.items()} == known
    assert all(find_exporter(name, options) for name, options in recipe.options.items())

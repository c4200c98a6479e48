import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_readme_shows_what_the_commands_print() -> None:
    command = [sys.executable, str(ROOT / "scripts/make_readme.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_example_runs(tiny: Path, tmp_path: Path) -> None:
    import re

    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    assert '"BAAI/bge-small-en"' in example
    source = example.replace('"BAAI/bge-small-en"', repr(str(tiny)))
    done = subprocess.run([sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/onnx/model_fp16.onnx").is_file()


def test_every_decision_and_script_of_the_readme_exists() -> None:
    import re

    text = (ROOT / "README.md").read_text("utf-8")
    for path in re.findall(r"`((?:scripts|docs|parity_fixtures)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path

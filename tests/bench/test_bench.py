"""The benchmark runs and writes its page: the short form of the part that needs no TPM and no control plane."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).parents[2] / "bench" / "run.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True, check=False, timeout=120)


def test_a_front_door_is_loaded_and_every_figure_is_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run("--only", "decisions", "--rounds", "1", "--policies", "1", "20", "--write", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for policies in (1, 20):
        row = next(line for line in text.splitlines() if line.startswith(f"| decision, CPU; policies: {policies} |"))
        ratio, against, median = (cell.strip() for cell in row.split("|")[2:5])
        assert float(ratio) > 1, "nothing is cheaper than the cryptography in it"
        assert against.startswith("floor of a decision")
        assert float(median.replace(",", "")) > 0
        assert f"| decisions per second per core; policies: {policies} |" in text


def test_an_unknown_part_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run("--only", "nothing", "--write", str(tmp_path / "page.md"))
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
    assert not (tmp_path / "page.md").exists()

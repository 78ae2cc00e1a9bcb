"""The benchmark runs and writes its page: the short form of the part that needs no TPM and no control plane."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from countersign.devcluster import OPA, find

RUN = Path(__file__).parents[2] / "bench" / "run.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(RUN), *words], capture_output=True, text=True, check=False, timeout=280)


def cells(text: str, *words: str) -> list[str]:
    """Return the cells of the first row of a table that begins with ``words``."""
    begin = f"| {' | '.join(words)} |"
    row = next(line for line in text.splitlines() if line.startswith(begin))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_front_door_is_loaded_and_every_figure_is_on_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run(
        "--only", "decisions", "--rounds", "1", "--seconds", "0.1", "--policies", "1", "20", "--write", str(page)
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    for policies in ("1", "20"):
        figures = [
            float(cell.replace(",", "")) for cell in cells(text, policies, "Countersign: the whole decision")[2:]
        ]
        rate, cpu, floors, answered, median, tail, alone, alone_tail, memory = figures
        assert abs(rate * cpu / 1e6 - 1) < 0.01, "the rate of a core is what the CPU of a decision allows"
        assert floors > 1, "nothing is cheaper than the cryptography in it"
        assert answered > 0
        assert 0 < median <= tail
        assert 0 < alone <= alone_tail
        assert memory > 10
    assert text.startswith("# Benchmarks\n\n- **"), "what was reached and missed comes first"
    assert "OPA" not in text


@pytest.mark.skipif(find(OPA) is None, reason="OPA is not there; make bench builds it")
def test_opa_decides_the_same_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run("--only", "opa", "--rounds", "1", "--seconds", "0.1", "--policies", "1", "20", "--write", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    alike = cells(text, "mixed questions that both decided alike, before the run")[1]
    assert alike.startswith("612, ")
    assert 20 < int(alike.split()[1]) < 592, "a set that only knows one answer shows nothing"
    for who in ("chain, proof, rules, token, log", "proof, rules, log", "the plain question"):
        assert float(cells(text, "20", f"OPA: {who}")[3].replace(",", "")) > 0


def test_two_doors_share_a_store_and_one_is_beside_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run("--only", "workers", "--rounds", "1", "--seconds", "0.1", "--write", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert cells(text, "1, its own memory")[3] == ""
    for doors in ("1, a Redis", "2, a Redis"):
        assert all(float(cell.replace(",", "")) > 0 for cell in cells(text, doors)[1:-1])


def test_the_audit_logs_modes_are_told_apart(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run("--only", "audit", "--rounds", "1", "--seconds", "0.1", "--write", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert cells(text, "64", "one fsync a record")[3] == "1.0"
    assert float(cells(text, "64", "grouped (the product)")[3]) > 1


def test_an_unknown_part_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run("--only", "nothing", "--write", str(tmp_path / "page.md"))
    assert done.returncode == 2
    assert "invalid choice" in done.stderr
    assert not (tmp_path / "page.md").exists()

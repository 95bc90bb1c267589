"""The README's Python, executed as it stands."""

from __future__ import annotations

import json
import re
import resource
import sys

from PIL import Image

from tests.cli_helpers import REPOSITORY, new_process, succeeded


def snippets():
    return re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def seconds_of_work():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_snippet_ends_within_seconds_in_a_number_above_random_and_a_picture(tmp_path):
    (snippet,) = snippets()
    before = seconds_of_work()
    process = succeeded(new_process(sys.executable, "-c", snippet, cwd=tmp_path))
    assert seconds_of_work() - before < 60  # importing PyTorch is a good part of it
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
    folder = tmp_path / "runs" / "snippet"
    evaluation = json.loads((folder / "card.json").read_text())["evaluation"]
    condensed, random = evaluation["condensed"][0], evaluation["baselines"]["random"]
    assert condensed["accuracy_mean"] - condensed["accuracy_std"] > random["accuracy_mean"] > 0.1
    assert f"{100 * condensed['accuracy_mean']:.1f} +- " in process.stdout
    with Image.open(folder / "grid.png") as picture:
        assert min(picture.size) > 32

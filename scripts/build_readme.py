"""Rebuild the README's tables from the cards in results/ and the JSON files in benchmarks/results/."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = {  # data set, ipc -> accuracy in the DC authors' readme, spread from arXiv 2107.13034, Table 1
    ("mnist", 1): "91.7 +- 0.5",
    ("cifar10", 1): "28.3 +- 0.5",
}


def main() -> None:
    """Rewrite all tables; with --check, fail if that would change the file."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    new = _between(_between(text, "results", results_table()), "benchmarks", benchmark_table())
    new = _between(new, "methods", methods_table())
    if "--check" in sys.argv and new != text:
        sys.exit("README.md does not show what results/ and benchmarks/results/ hold: run scripts/build_readme.py")
    readme.write_text(new)


def results_table() -> str:
    """Return the table of all cards, one row each."""
    cards = [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("*/card.json"))]
    header = "| data | images per class | updates | condensed | random real | all real, short | published | networks |"
    return "\n".join([header, "|" + "---|" * 8, *map(_row, sorted(cards, key=_order))])


def benchmark_table() -> str:
    """Return the table of all timed updates."""
    header = "| work | route | straightforward | engine | faster | agreement: relative error, cosine |"
    return "\n".join([header, "|" + "---|" * 6, *map(_timing, _timings("update_*.json"))])


def methods_table() -> str:
    """Return the table of the methods' matching updates beside DC's, and that of DREAM's blocks."""
    rows = [_method(file, method) for file in _timings("methods_ipc*.json") for method in file["methods"].values()]
    blocks = [_block(file, *block) for file in _timings("dream_ipc*.json") for block in file["blocks"].items()]
    header = "| method | images per class | real | update | yardstick | ratio | augmentation | drawing | training |"
    dream_header = "| DREAM chooses among | images per class | data | k-means and features | block of updates | share |"
    tables = ["\n".join([header, "|" + "---|" * 9, *rows])] if rows else []
    tables += ["\n".join([dream_header, "|" + "---|" * 6, *blocks])] if blocks else []
    return "\n\n".join(tables) or "Not measured yet: `python -m benchmarks.methods`."


def _order(card: dict[str, Any]) -> tuple[str, int, int]:
    return card["data"]["dataset"], card["ipc"][0], card["update"]


def _row(card: dict[str, Any]) -> str:
    evaluation, ipc = card["evaluation"], card["ipc"][0]
    condensed, full = evaluation["condensed"][0], evaluation["all_real_short"]
    # cards of version 0.1 had one baseline and no list of them
    random = evaluation["baselines"]["random"] if "baselines" in evaluation else evaluation["random_real"]
    published = PUBLISHED.get((card["data"]["dataset"], ipc), "-")
    cells = [
        card["data"]["dataset"],
        str(ipc),
        str(card["update"]),
        f"**{_percent(condensed)}**",
        _percent(random),
        f"{100 * full['accuracy_mean']:.1f} ({full['recipe']['steps']} steps)",
        published,
        f"{condensed['networks']} x {condensed['network']}, `{condensed['recipe']['protocol']}`",
    ]
    return "| " + " | ".join(cells) + " |"


def _percent(score: dict[str, Any]) -> str:
    return f"{100 * score['accuracy_mean']:.1f} +- {100 * score['accuracy_std']:.1f}"


def _timing(result: dict[str, Any]) -> str:
    slow, fast = result["straightforward"]["total"], result["engine"]["total"]
    agreement = result["image_gradient_against_float64"]
    cells = [
        result["what"],
        result["route"],
        f"{slow['median']:.2f} s",
        f"{fast['median']:.2f} s",
        f"**{result['speedup_of_medians']}x**",
        f"{agreement['relative_error']:.1e}, {agreement['cosine']:.6f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _timings(pattern: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob(pattern))]


def _method(file: dict[str, Any], method: dict[str, Any]) -> str:
    seconds = {part: f"{value['median']:.2f} s" for part, value in method["seconds"].items()}
    cells = [
        f"`{method['method']}`",
        str(file["ipc"]),
        str(method["real_images"]),
        seconds["update"],
        f"{method['bound']:.2f} s",
        f"**{method['ratio']:.2f}**",
        *(seconds[part] for part in ("augmentation", "sampling", "inner")),
    ]
    return "| " + " | ".join(cells) + " |"


def _block(file: dict[str, Any], label: str, block: dict[str, Any]) -> str:
    total = sum(block["seconds"].values())
    share = f"**{100 * block['share']:.0f} %**"
    cells = [label, str(file["ipc"]), file["data"], f"{block['seconds']['sampling']:.1f} s", f"{total:.1f} s", share]
    return "| " + " | ".join(cells) + " |"


def _between(text: str, name: str, table: str) -> str:
    pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)


if __name__ == "__main__":
    main()

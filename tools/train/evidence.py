"""Writes docs/evidence.md and its plots from the results of the evaluation."""

import argparse
import json
from pathlib import Path

from plot import Line, chart

PROSE = Path(__file__).with_name("evidence.md.in")
ENOUGH = 0.95
EXAMPLES = {"chain": "yz cd ab xy de bc;axc=", "arithmetic": "7+5-3*2", "addition": "7+5a4+8bc="}


def percent(value):
    return f"{100 * value:.1f}".removesuffix(".0")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def sizes_of(results, task):
    """Sizes as written, with those beyond training marked."""
    return {size: size if int(size) <= results["trained"][task] else f"{size} (beyond)" for size in results["recurrent"][task]}


def trained_cells(results, task, kind="recurrent"):
    return [cell for size, cell in results[kind][task].items() if int(size) <= results["trained"][task]]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def accuracy_table(results, task):
    cells = results["recurrent"][task]
    depths = list(next(iter(cells.values()))["accuracy"])
    rows = [
        [name, *(percent(cells[size]["accuracy"][depth]) for depth in depths), percent(cells[size]["zero_latent"])]
        for size, name in sizes_of(results, task).items()
    ]
    return table(["size", *(f"r = {depth}" for depth in depths), f"zero latent, r = {results['full']}"], rows)


def adaptive_table(results):
    rows = []
    for task, cells in results["recurrent"].items():
        for size, name in sizes_of(results, task).items():
            cell, full = cells[size], cells[size]["accuracy"][str(results["full"])]
            adaptive = cell["adaptive"]
            numbers = [f"{adaptive['mean_depth']:.1f}", f"{adaptive['deepest_depth']:.1f}", percent(adaptive["saved"])]
            rows.append([task, name, percent(full), percent(adaptive["accuracy"]), *numbers])
    return table(["task", "size", "full depth, %", "adaptive, %", "mean depth", "deepest", "saved, %"], rows)


def cheapest(cell):
    """The least work at which a fixed depth is right often enough, and that depth."""
    enough = [(cell["work"][depth], depth) for depth, share in cell["accuracy"].items() if share >= ENOUGH]
    return min(enough, default=(None, None))


def comparison_table(results):
    rows = []
    for task, cells in results["recurrent"].items():
        for size, name in sizes_of(results, task).items():
            (work, depth), plain = cheapest(cells[size]), results["plain"][task][size]
            best = percent(max(cells[size]["accuracy"].values()))
            at_once = ["-", "-"] if work is None else [f"{work:.0f}", depth]
            rows.append([task, name, best, *at_once, percent(plain["accuracy"]), f"{plain['work']:.0f}", f"{plain['written']:.1f}"])
    head = ["task", "size", "recurrent, best %", "work to 95 %", "at r", "plain, %", "its work", "tokens written"]
    return table(head, rows)


def goals_table(results):
    """Each goal at the sizes trained on, with the worst value over them."""
    full, rows = str(results["full"]), []
    for task in results["recurrent"]:
        cells = trained_cells(results, task)
        worst = min(cell["accuracy"][full] for cell in cells)
        loss = max(cell["accuracy"][full] - cell["adaptive"]["accuracy"] for cell in cells)
        depths = [cell["adaptive"]["mean_depth"] for cell in cells]
        fall = max(cell["accuracy"][full] - min(cell["accuracy"]["64"], cell["accuracy"]["128"]) for cell in cells)
        facts = [
            ("accuracy at r = 1, highest", percent(max(cell["accuracy"]["1"] for cell in cells)), "< 40", max(cell["accuracy"]["1"] for cell in cells) < 0.4),
            (f"accuracy at r = {full}, lowest", percent(worst), ">= 95", worst >= ENOUGH),
            ("adaptive below full depth by, most", percent(loss), "<= 0.5", loss <= 0.005),
            ("iterations of later tokens saved, least", percent(min(c["adaptive"]["saved"] for c in cells)), ">= 40", min(c["adaptive"]["saved"] for c in cells) >= 0.4),
            ("mean depth, smallest to largest size", f"{depths[0]:.1f} to {depths[-1]:.1f}", "grows", depths[-1] > depths[0]),
            ("lost at r = 64 or 128, most", percent(fall), "<= 1", fall <= 0.01),
            ("accuracy from zero latent, lowest", percent(min(c["zero_latent"] for c in cells)), ">= 95", min(c["zero_latent"] for c in cells) >= ENOUGH),
        ]
        rows += [[task, what, value, goal, "yes" if met else "**no**"] for what, value, goal, met in facts]
    return table(["task", "at the sizes trained on", "%", "goal", "met"], rows)


def runs_table(folders):
    """How long each run took, where, and the size that each task's curriculum reached."""
    rows = []
    for folder in folders:
        run = json.loads((folder / "training" / "run.json").read_text())
        reached = ", ".join(f"{task} {size}" for task, size in run["sizes"].items())
        machine = run["gpu"] or f"{run['processes']} of {run['cores']} cores, {run['processor']}"
        rows.append([folder.name, run["steps"], f"{run['seconds'] / 60:.0f}", machine, reached])
    return table(["model", "steps", "minutes", "machine", "sizes reached in training"], rows)


def depth_chart(results, task):
    cells = results["recurrent"][task]
    lines = [
        Line(f"size {name}", [(int(depth), 100 * share) for depth, share in cells[size]["accuracy"].items()], "beyond" in str(name))
        for size, name in sizes_of(results, task).items()
    ]
    return chart(f"{task}: whole answers right, by depth", "core iterations r", "%", lines, logarithmic=True)


def work_chart(results, task):
    """Means over the sizes trained on: the recurrent model at each fixed depth, the plain one as it is."""
    cells, plain = trained_cells(results, task), trained_cells(results, task, "plain")
    points = [
        (mean(cell["work"][depth] for cell in cells), 100 * mean(cell["accuracy"][depth] for cell in cells))
        for depth in cells[0]["work"]
    ]
    lines = [
        Line("at once, by r", points),
        Line("writes steps", [(mean(c["work"] for c in plain), 100 * mean(c["accuracy"] for c in plain))]),
    ]
    return chart(f"{task}: accuracy against work", "layer applications x positions", "%", lines, logarithmic=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("models", type=Path, help="folder of the models demo and plain")
    parser.add_argument("docs", type=Path, help="folder of evidence.md; plots go to its folder evidence")
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    plots = options.docs / "evidence"
    plots.mkdir(parents=True, exist_ok=True)
    sections = []
    for task in results["recurrent"]:
        (plots / f"{task}-depth.svg").write_text(depth_chart(results, task))
        (plots / f"{task}-work.svg").write_text(work_chart(results, task))
        image = f"![{task} by depth](evidence/{task}-depth.svg)"
        sections.append(f"### {task}: `{EXAMPLES[task]}`\n\n{accuracy_table(results, task)}\n\n{image}")
    filled = {
        "PUZZLES": str(results["puzzles"]),
        "RUNS": runs_table([options.models / "demo", options.models / "plain"]),
        "GOALS": goals_table(results),
        "ACCURACY": "\n\n".join(sections),
        "ADAPTIVE": adaptive_table(results),
        "COMPARISON": comparison_table(results),
        "WORK_PLOTS": "\n\n".join(f"![{task} by work](evidence/{task}-work.svg)" for task in results["recurrent"]),
    }
    text = PROSE.read_text()
    for name, content in filled.items():
        text = text.replace(f"@{name}@", content)
    (options.docs / "evidence.md").write_text(text)


if __name__ == "__main__":
    main()

"""Curves of `underfire train aid`: drift of benign maps and separation of attacked ones, as both grow over the steps.

python benchmarks/show_training.py --out curves.svg "CIFAR-10, weight 50=first.csv" "HAM10000=second.csv"
"""

import argparse
import csv
from pathlib import Path

import matplotlib.pyplot as plt

from underfire.core.plots import COLOURS, INK, STYLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="+", metavar="NAME=CSV")
    parser.add_argument("--bound", type=float, default=0.05, help="how far benign maps may drift")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with plt.rc_context({**STYLE, "axes.spines.left": True, "svg.fonttype": "none"}):
        figure, (over_steps, against) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        for place, named in enumerate(options.curves):
            name, _, path = named.partition("=")
            with open(path, newline="") as lines:
                rows = list(csv.DictReader(lines))
            step, drift, separation = (
                [float(row[column]) for row in rows] for column in ("step", "drift", "separation")
            )
            colour = COLOURS[(1 + place) % len(COLOURS)]
            over_steps.plot(step, separation, color=colour, label=name)
            over_steps.plot(step, drift, color=colour, linestyle=":")
            against.plot(drift, separation, color=colour, marker=".", label=name)
        over_steps.set(xlabel="step", ylabel="separation (line), drift (dots)", ylim=(0, None))
        against.set(xlabel="drift of benign maps", ylabel="separation of attacked maps", xlim=(0, None), ylim=(0, None))
        for axes in (over_steps, against):
            axes.set_facecolor("none")
        over_steps.axhline(options.bound, color=INK, linewidth=0.7)
        against.axvline(options.bound, color=INK, linewidth=0.7)
        figure.legend(
            *against.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False, fontsize=8
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()

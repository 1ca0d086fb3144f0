"""From a run folder to numbers: python examples/read_run.py runs/demo"""

import sys

import numpy as np
import pyarrow.compute as pc

import underfire as uf

run = uf.open_run(sys.argv[1])
print(f"{run.info['model']['name']}, seed {run.info['seed']}, underfire {run.info['underfire']}")

outcomes = run.outcomes()  # one row per image, attack and interpreter
means = outcomes.group_by(["interpreter", "attack"], use_threads=False).aggregate(
    [("map_l1", "mean"), ("confidence", "mean"), ("success", "sum"), ("id", "count")]
)
for row in means.to_pylist():
    print(
        f"{row['interpreter']:8} {row['attack']:5} fooled {row['success_sum']} of {row['id_count']}, "
        f"p {row['confidence_mean']:.3f}, map distance {row['map_l1_mean']:.3f}"
    )

closest = outcomes.filter(pc.equal(outcomes["attack"], "adv2")).sort_by("map_l1").slice(0, 1).to_pylist()[0]
ids, images = run.images("adv2", closest["interpreter"])  # float32, N3HW
_, benign = run.images("benign")
change = np.abs(images[ids.index(closest["id"])] - benign[ids.index(closest["id"])])
print(f"closest map: {closest['id']} on {closest['interpreter']}, largest change {255 * change.max():.1f}/255")

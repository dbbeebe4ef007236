"""A run from Python, stage by stage, then the claims judged; argument: the run directory."""

import json
import sys
from pathlib import Path

from fpga_flow.console import Progress
from fpga_flow.pipeline.resolve import resolve
from fpga_flow.pipeline.run import execute
from fpga_flow.pipeline.rundir import RunDirectory
from fpga_flow.pipeline.stages import order
from fpga_flow.report.claim_list import claims_text

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
settings = resolve(
    preset="smoke",
    overrides=[
        "run.seeds=0,1",
        "train.float_epochs=3",
        "attack.budgets=150",
    ],
)
wanted = ("train", "export", "attack", "report")  # no hardware: compile and simulate left out
stages = [stage for stage in order.STAGES if stage.name in wanted]
for outcome in execute(RunDirectory(folder), settings, stages, progress=Progress()):
    print(f"{outcome.stage}: {outcome.status}")

results = json.loads((folder / "report" / "results.json").read_text("utf-8"))
for row in results["attacks"]:
    print(
        f"{row['victim']} (seed {row['victim_seed']}): clone {row['clone_accuracy']:.1%}, "
        f"agreement {row['agreement']:.1%} after {row['queries_used']} queries"
    )
print(claims_text(folder))

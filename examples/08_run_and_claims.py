"""A run from Python, stage by stage, then the claims judged; argument: the run directory.

`run` alone does all stages; here compile and simulate are left out, so no tool is needed.
"""

import sys
from pathlib import Path

from fpga_flow import attack, run
from fpga_flow.report import claims_text

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")
settings = {"run.seeds": [0, 1], "train.float_epochs": 3, "attack.budgets": [150]}
run(preset="smoke", overrides=settings, out=folder, until="export")
for row in attack(folder):
    print(
        f"{row.victim} (seed {row.victim_seed}): clone {row.clone_accuracy:.1%}, "
        f"agreement {row.agreement:.1%} after {row.queries_used} queries"
    )

results = run(out=folder, only="report")  # what report/results.json holds, as objects
for name, stage in results.run.stages.items():
    print(f"{name}: {stage.status}")
for victim in results.victims:
    print(f"{victim.variant} (seed {victim.seed}): accuracy {victim.accuracy:.1%}")
print(claims_text(folder))

"""Random networks by the thousand: nothing but equal integers, or a refusal with its reason.

    python tests/random_networks KIND --count N [--start S]

KIND is one of

- layers: integer networks without a file; the int64 definition and the integer engine are equal;
- qonnx: raw graphs; exact fractions, the int64 definition and the integer engine are equal;
- executed-qonnx: the same, and QONNX's own execution in float32;
- brevitas: through the export and its parity gate, then the integer engine;
- finn, rtl: Brevitas networks and raw graphs in which ``divqat check`` finds nothing, built and
  executed, or simulated as a hardware design;
- branches, depthwise, one-bit: as rtl, Brevitas networks with residual sums and concatenations,
  with separable convolutions and averages, or mostly of one-bit weights and activations.

Network S is the same at any time; what differs is printed with it. Exit code 1 where anything does.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parent / "support")]


def main() -> None:
    """Read the command line, run the networks, print what came of them."""
    from standing import CHECKS, Outcome, run

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kind", choices=CHECKS)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--lines", action="store_true", help="print each network")
    asked = parser.parse_args()
    outcome, began = Outcome(), time.process_time()
    with tempfile.TemporaryDirectory(prefix="divqat-random-") as folder:
        for seed in range(asked.start, asked.start + asked.count):
            said = len(outcome.differences), len(outcome.faults)
            line = run(asked.kind, seed, outcome, Path(folder))
            if asked.lines:
                print(f"{asked.kind} {seed}: {line}")
            for new in (*outcome.differences[said[0] :], *outcome.faults[said[1] :]):
                print(f"WRONG {new}", flush=True)
    for reason, count in outcome.reasons.most_common():
        print(f"{count:6} refused: {reason}")
    seconds = time.process_time() - began
    print(f"{asked.kind} from {asked.start}: {outcome} ({seconds:.0f} s of this process)")
    sys.exit(bool(outcome.differences or outcome.faults))


if __name__ == "__main__":
    main()

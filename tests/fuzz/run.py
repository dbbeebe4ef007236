"""Fuzz one target with atheris (coverage guided; not a dependency: pip install atheris).

    python tests/fuzz/run.py TARGET --seconds 600 [--out FOLDER]

Prints executions and seconds at the end. An input that crashes is written to FOLDER; its smallest
form belongs into tests/fuzz/corpus/TARGET, where a test runs it for ever.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1]))


def main() -> None:
    """Read the command line and fuzz until the time is over or something is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "divqat-fuzz")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (CPython 3.11 to 3.13, Linux)")
    from targets import INSTRUMENTED, TARGETS, seeds

    reloaded = ("fpga_flow.", *(f"{name}." for name in INSTRUMENTED))
    if chosen.target not in TARGETS:
        sys.exit(f"targets: {', '.join(TARGETS)}")
    folder = chosen.out / chosen.target
    corpus, findings = folder / "corpus", folder / "findings"
    for one in (corpus, findings):
        one.mkdir(parents=True, exist_ok=True)
    given = [*seeds(chosen.target), *(p.read_bytes() for p in committed(chosen.target))]
    for number, data in enumerate(given):
        (corpus / f"seed-{number}").write_bytes(data)
    # Modules that are there already, Python's own too, are instrumented by reloading them.
    for name in [m for m in sys.modules if f"{m}.".startswith(reloaded)]:
        del sys.modules[name]
    with atheris.instrument_imports(include=INSTRUMENTED):
        TARGETS[chosen.target](given[0])
    options = [
        sys.argv[0],
        f"-max_total_time={chosen.seconds}",
        f"-artifact_prefix={findings}/",
        "-timeout=60",
        "-rss_limit_mb=6000",
        "-max_len=65536",
        "-print_final_stats=1",
        f"-seed={chosen.seed}",
        str(corpus),
    ]
    if chosen.target in ("onnx", "step", "qonnx"):
        atheris.Setup(options, TARGETS[chosen.target], custom_mutator=mutate_model)
    else:
        atheris.Setup(options, TARGETS[chosen.target])
    atheris.Fuzz()


def committed(target: str) -> list[Path]:
    """The inputs that were found once, and fixed."""
    return sorted((HERE / "corpus" / target).glob("*"))


def mutate_model(data: bytes, most: int, seed: int) -> bytes:
    """A model changed field by field; what no longer parses is changed byte by byte."""
    import atheris
    from onnx import ModelProto
    from proto_mutation import mutate

    rng = random.Random(seed)
    model = ModelProto()
    try:
        if rng.random() < 0.1:
            raise ValueError("bytes, for once")
        model.ParseFromString(data)
        mutate(model, rng, rng.randint(1, 4))
        changed = model.SerializeToString()
    except Exception:
        return bytes(atheris.Mutate(data, most))
    return changed if len(changed) <= most else data


if __name__ == "__main__":
    main()

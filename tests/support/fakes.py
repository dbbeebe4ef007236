"""Three quick stages that behave like real ones: cells, a settings-dependent file, an upstream."""

from pathlib import Path

from divqat_brevitas.errors import ToolMissingError
from divqat_brevitas.files import write_json, write_text
from fpga_flow.console import Progress
from fpga_flow.pipeline.stages.context import Stage, StageContext


class Silent(Progress):
    """Progress that remembers its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


class Fakes:
    """The stages train, compile and report; ``ran`` tells what they did, in order."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.compile_raises: BaseException | None = None
        self.compile_makes_estimate = False
        self.stages = [
            Stage("train", ("train", "run.seeds"), self.train),
            Stage("compile", ("compile",), self.compile, needs=("train",), files=folding),
            Stage("report", ("attack",), self.report, needs=("train",), uses=("compile",)),
        ]

    def train(self, context: StageContext) -> None:
        variants = context.config.train.variants
        rate = context.config.train.learning_rate
        for variant in context.progress.track(variants, "victims"):

            def work(variant: str = variant) -> None:
                self.ran.append(f"train {variant}")
                write_text(context.folder / f"{variant}.txt", f"{variant} {rate}\n" * 1000)
                write_json(context.folder / f"{variant}.json", {"variant": variant})

            key = {"variant": variant, "rate": rate}
            context.task(variant, key, [f"{variant}.txt", f"{variant}.json"], work)
        write_json(context.output("victims.json"), list(variants))

    def compile(self, context: StageContext) -> None:
        self.ran.append("compile")
        if self.compile_makes_estimate:
            write_text(context.output("estimate.txt"), "1000 LUT\n")
        if self.compile_raises is not None:
            raise self.compile_raises
        folder = context.output("build")
        for name in ("a/1.v", "a/2.v"):
            write_text(folder / name, f"{name} {context.hash('train/victims.json')}")

    def report(self, context: StageContext) -> None:
        self.ran.append("report")
        write_json(context.output("results.json"), {"readable": sorted(context.readable)})


def folding(config: object) -> list[Path]:
    path = config.compile.folding  # type: ignore[attr-defined]
    return [path] if path else []


MISSING = ToolMissingError("finn-plus is not installed. Run: pip install finn-plus")

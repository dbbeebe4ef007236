"""Export: every quantized victim to QONNX, through the parity gate, one task a victim.

Reads train/. Writes export/: <victim>.onnx, the settled weights that it equals
(<victim>.safetensors), network_<variant>.json (one row a layer) and parity.json.
"""

from dataclasses import asdict
from functools import partial

from divqat_brevitas.errors import CheckFailedError
from divqat_brevitas.files import read_json, write_json
from divqat_brevitas.training import save_weights
from fpga_flow.export import ExportReport, export_qonnx
from fpga_flow.integer.gate import refuse
from fpga_flow.pipeline.stages.context import StageContext
from fpga_flow.pipeline.stages.victims import VictimId, quantized, split, trained


def run(context: StageContext) -> None:
    """Export every victim that has no export of its weights yet."""
    chosen = quantized(context.config)
    for victim in context.progress.track(chosen, "victims exported"):
        key = {
            "weights": context.hash(f"train/{victim.weights}"),
            "export": context.config.fingerprint("export"),
            "data": context.config.fingerprint("data"),
        }
        context.task(victim.stem, key, outputs(victim), partial(_export, context, victim))
    rows = {v.stem: read_json(context.folder / f"parity_{v.stem}.json") for v in chosen}
    write_json(context.output("parity.json"), rows)


def outputs(victim: VictimId) -> list[str]:
    """Files of one victim, within export/."""
    stem = victim.stem
    # Another seed's network has the same layers.
    layers = [] if victim.suffix else [f"network_{stem}.json"]
    return [f"{stem}.onnx", f"{stem}.safetensors", f"parity_{stem}.json", *layers]


def _export(context: StageContext, victim: VictimId) -> None:
    config, folder = context.config, context.folder
    images = split(config, "val")[0][: config.export.parity_inputs]
    file, exporter = folder / f"{victim.stem}.onnx", config.export.exporter
    report = export_qonnx(trained(context, victim), file, images, exporter=exporter)
    if report.network is None:
        raise CheckFailedError(
            f"{victim.stem} cannot be lowered to integers: {report.not_lowered} Take a model of "
            "the zoo (divqat_brevitas.models.MODELS)."
        )
    record = {"variant": victim.variant, "seed": victim.seed, "bits": config.model.bits}
    save_weights(folder / f"{victim.stem}.safetensors", report.model, record)
    if not victim.suffix:
        layers = [asdict(row) for row in report.network.describe()]
        write_json(folder / f"network_{victim.stem}.json", layers)
    write_json(folder / f"parity_{victim.stem}.json", _parity(report))
    for noise in report.parity.noise:
        context.progress.log(f"{victim.stem}: {noise}")
    refuse(report.parity.replaced)


def _parity(report: ExportReport) -> dict[str, object]:
    parity = report.parity
    return {
        "exporter": report.exporter,
        "inputs": parity.inputs,
        "mismatches": parity.mismatches,
        "by_noise": parity.by_noise,
        "noise": [asdict(one) for one in parity.noise],
        "unit": parity.unit,
        "layers": list(parity.layers),
        "flips_by_settling": report.flips,
        "settled": [
            {
                "layer": s.layer,
                "moved": s.values is not None,
                "shift": round(s.shift, 6),
                "margin": round(s.margin, 6),
            }
            for s in report.settled
        ],
    }

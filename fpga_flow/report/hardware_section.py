"""The page's section on hardware: the device's floor, resources and speed, cells by layer."""

from fpga_flow.report import hardware_figures
from fpga_flow.report.blocks import charts, folded, fraction, paragraph
from fpga_flow.report.floor import floor
from fpga_flow.report.markup import Markup, amount, element, table
from fpga_flow.report.runs import in_order
from fpga_flow.report.schema import Results
from fpga_flow.report.text import listed
from fpga_flow.report.words import not_run


def hardware(results: Results) -> list[Markup]:
    """What the tools said of the devices, and what was not run."""
    stages = ("estimate", "synthesis", "place_and_route", "bitstream")
    missing = [
        stage.replace("_", " ")
        for stage in stages
        if stage not in {row.stage for row in results.hardware}
    ]
    tools = " ".join(row.tool.lower() for row in results.hardware)
    boards = f"{'' if 'vivado' in tools else 'Vivado: not run. '}Execution on a board: not run."
    if not results.hardware:
        return [paragraph(f"Hardware: {not_run(results, 'compile')}."), paragraph(boards)]
    rows = [
        (
            row.variant,
            element("span", row.device, class_="nowrap"),
            element("span", row.stage.replace("_", " "), class_="label"),
            amount(row.lut),
            fraction(row.utilisation.get("lut")),
            *(amount(value) for value in (row.ff, row.bram, row.dsp, row.fmax_mhz, row.clock_mhz)),
            *(amount(value) for value in (row.cycles_per_image, row.images_per_s)),
            amount(row.bitstream_bytes),
            row.tool,
        )
        for row in results.hardware
    ]
    head = (
        "Variant",
        "Device",
        "Stage",
        "LUT",
        "LUT of the device",
        "FF",
        "BRAM",
        "DSP",
        "fmax, MHz",
        "Clock, MHz",
        "Cycles per image",
        "Images per s",
        "Bitstream, bytes",
        "Tool",
    )
    said = f"{listed(missing).capitalize()}: not run. " if missing else ""
    return [
        *floor(results),
        table("Resources and speed", head, rows, ("Device", "Stage", "Tool")),
        paragraph(
            "An estimate is the tool's own model, not a measurement. fmax is the place-and-route "
            "tool's timing model; images per s are at the clock, where one is given. "
            f"{said}{boards}"
        ),
        *_placed(results),
        *_compile_reason(results),
    ]


def _placed(results: Results) -> list[Markup]:
    """The cells that each layer takes of the chip."""
    parts = []
    for index, variant in enumerate(in_order(results, results.cells)):
        rows = results.cells[variant]
        columns = ("lut", "ff", "bram", "lutram", "dsp")
        content = (
            table(
                f"Cells of {variant} by layer, after synthesis",
                ("Layer", "LUT", "FF", "BRAM", "LUT RAM", "DSP"),
                [(row.name, *(amount(getattr(row, column)) for column in columns)) for row in rows],
            ),
            charts(hardware_figures.cell_charts(variant, index, rows)),
        )
        parts.append(folded(f"Cells of {variant} by layer, after synthesis", *content))
    return parts


def _compile_reason(results: Results) -> list[Markup]:
    stage = results.run.stages.get("compile")
    if stage is None or stage.status in ("done", "running"):
        return []
    return [paragraph(f"The compile stage did not finish: {not_run(results, 'compile')}.")]

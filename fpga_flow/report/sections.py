"""The sections of the page: results in, HTML out. Each stands for itself."""

from fpga_flow.report import figures, hardware_figures
from fpga_flow.report.blocks import charts, decimal, folded, fraction, note, paragraph
from fpga_flow.report.markup import Markup, amount, element, table
from fpga_flow.report.runs import in_order
from fpga_flow.report.schema import Results
from fpga_flow.report.text import counted, listed
from fpga_flow.report.words import RECONSTRUCTION, not_run


def victims(results: Results) -> list[Markup]:
    """Victims' table and bars."""
    if not results.victims:
        return [paragraph(f"Victims: {not_run(results, 'train')}.")]
    rows = [
        (
            row.variant,
            row.bits,
            row.preset,
            row.seed,
            fraction(row.accuracy),
            fraction(row.accuracy_engine),
            row.engine,
            decimal(row.ece),
            decimal(row.l1_to_reference),
            fraction(row.flips_from_reference),
        )
        for row in results.victims
    ]
    head = (
        "Variant",
        "Bits",
        "Preset",
        "Seed",
        "Accuracy, torch",
        "Accuracy, engine",
        "Engine",
        "ECE",
        "ℓ1 to reference",
        "Flips",
    )
    return [
        table("Victims on the test set", head, rows, ("Bits", "Preset", "Engine")),
        note(
            "ECE: expected calibration error, 0 to 1. ℓ1: mean distance of the answered "
            "probabilities from the frozen float reference's, 0 to 2. Flips: test images on which "
            "the two decide differently."
        ),
        charts([figures.victim_accuracy(results)]),
        note(
            "Bars: mean over seeds; whiskers: lowest and highest. On the engine: "
            f"{sum(row.accuracy_engine is not None for row in results.victims)} of "
            f"{counted(len(results.victims), 'victim row')}."
        ),
    ]


def layers(results: Results) -> list[Markup]:
    """Bit widths and cost, layer by layer; networks that are alike are shown once."""
    alike: dict[str, list[str]] = {}
    for variant in in_order(results, results.layers):
        rows = results.layers[variant]
        alike.setdefault(repr(rows), []).append(variant)
    if not alike:
        return [paragraph(f"Layers: {not_run(results, 'export')}."), *_estimated(results)]
    parts = []
    head = ("Layer", "Operation", "Weight bits", "Activation bits", "Accumulator bits")
    for index, names in enumerate(alike.values()):
        rows = results.layers[names[0]]
        title = listed(names)
        parts += [
            table(
                f"Layers of {title}",
                (*head, "Parameters", "MACs per image"),
                [
                    (
                        row.name,
                        row.op,
                        *map(amount, (row.weight_bits, row.activation_bits, row.accumulator_bits)),
                        *map(amount, (row.parameters, row.macs)),
                    )
                    for row in rows
                ],
                ("Operation",),
            ),
            charts(hardware_figures.layer_charts(title, index, rows)),
        ]
    return [*parts, *_estimated(results)]


def training(results: Results) -> list[Markup]:
    """Curves over epochs."""
    found = figures.training_curves(results)
    if not found:
        return [paragraph(f"Training curves: {not_run(results, 'train')}.")]
    return [
        note("Mean over seeds; whiskers: lowest and highest seed, where there are several."),
        charts(found),
    ]


def limits(results: Results) -> list[Markup]:
    """What a reader must not conclude."""
    sentences = (
        RECONSTRUCTION,
        "The threat is a thief who can only ask. Whoever can read the weights (from the device, an "
        "unencrypted bitstream, memory or a side channel) needs no query, and nothing here stops "
        "that.",
        "A thief with images like the victim's own training data can train without asking much; "
        "defences of this kind are not known to help there.",
        "The thief tried what is listed above and no more. Published work breaks this family of "
        "objectives with adapted students (“undistillable” teachers, 2021 and 2022) or by learning "
        "to undo the perturbation; attacks that are not listed were not tried.",
        "DivQAT is deterministic and changes answers without hiding them: an interface that gives "
        "the label only is a defence too, and the one to beat.",
        f"One data set ({results.dataset.name}), one family of networks, the budgets listed: "
        "nothing follows for others.",
        "Hardware figures labelled estimate come from a tool's model. Accuracy and attacks were "
        "computed by the engine named, not by a board.",
    )
    return [element("ul", *(element("li", sentence) for sentence in sentences))]


def _estimated(results: Results) -> list[Markup]:
    """FINN's layers: other names and other cuts than the exported network's."""
    parts = []
    for index, variant in enumerate(in_order(results, results.estimates)):
        rows = results.estimates[variant]
        columns = ("pe", "simd", "cycles", "lut", "bram", "dsp")
        content = (
            table(
                f"FINN's layers of {variant} (estimate)",
                ("Layer", "PE", "SIMD", "Cycles per image", "LUT", "BRAM", "DSP"),
                [(row.name, *(amount(getattr(row, column)) for column in columns)) for row in rows],
            ),
            charts(hardware_figures.hardware_charts(variant, index, rows)),
        )
        parts.append(folded(f"Hardware layers of {variant} (estimate)", *content))
    return parts

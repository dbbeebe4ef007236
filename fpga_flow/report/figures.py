"""The report's charts: which numbers of the results each one draws."""

from collections.abc import Iterable, Sequence

from fpga_flow.report.analysis import (
    Spread,
    deployed,
    in_order,
    variants,
    victim_spread,
    worst_case,
)
from fpga_flow.report.charts import Chart, Series, bar_chart, line_chart
from fpga_flow.report.schema import (
    AttackRow,
    HardwareRow,
    LayerCells,
    LayerEstimate,
    LayerRow,
    Results,
)
from fpga_flow.report.words import POOLS


def victim_accuracy(results: Results) -> Chart | None:
    """Victims' test accuracy by variant, torch beside the engine; None without victims."""
    names = variants(results)
    if not names:
        return None
    torch = [victim_spread(results, name, lambda row: row.accuracy) for name in names]
    engine = [victim_spread(results, name, lambda row: row.accuracy_engine) for name in names]
    series: dict[str, list[Spread | None]] = {"torch": torch}
    if any(engine):
        series["engine"] = engine
    said = "; ".join(
        f"{name} {100 * value.mean:.1f} %"
        for name, value in zip(names, torch, strict=True)
        if value
    )
    return bar_chart(
        "victims",
        "Victims' test accuracy",
        f"Test accuracy in torch: {said}.",
        names,
        {
            label: [value and value.scaled(100) for value in values]
            for label, values in series.items()
        },
        "test accuracy, %",
        limits=(0, 109),
        label_bars=True,
        longest=12,
    )


def clone_curves(results: Results) -> list[Chart]:
    """Worst-case clone accuracy against query budget: a chart an oracle, kind of pool, defence."""
    panels: dict[tuple[str, str | None, str], list[AttackRow]] = {}
    for row in results.attacks:
        panels.setdefault((row.oracle, row.pool_kind, row.defence or "none"), []).append(row)
    known = dict.fromkeys([*variants(results), *(row.victim for row in results.attacks)])
    charts = []
    for number, ((oracle, kind, defence), rows) in enumerate(panels.items()):
        lines = []
        for colour, victim in enumerate(known):
            attacked: dict[int, list[AttackRow]] = {}
            for row in rows:
                if row.victim == victim:
                    attacked.setdefault(row.budget, []).append(row)
            found = {budget: worst_case(attacked[budget]) for budget in sorted(attacked)}
            best = {budget: spread.scaled(100) for budget, spread in found.items() if spread}
            if best:
                lines.append(Series(victim, colour, list(best), list(best.values())))
        said = "; ".join(
            f"{line.label} {line.spread[-1].mean:.1f} % at {line.x[-1]:,} queries" for line in lines
        )
        title = f"{oracle} answers, {POOLS.get(kind or '', 'unnamed')} queries"
        charts.append(
            line_chart(
                f"clones-{number}",
                title if defence == "none" else f"{title}, {defence}",
                f"Best clone's test accuracy by victim: {said}.",
                lines,
                "query budget",
                "best clone's accuracy, %",
                band=_ceiling(results, [line.label for line in lines]),
            )
        )
    return charts


def training_curves(results: Results) -> list[Chart]:
    """What ``train/metrics.jsonl`` recorded over epochs, mean over seeds; one chart a quantity."""
    charts = []
    for number, (key, label) in enumerate(_QUANTITIES.items()):
        scale = 100 if key.endswith("_accuracy") else 1
        points: dict[str, dict[float, list[float]]] = {}
        for row in results.training:
            x, y = row.get("epoch"), row.get(key)
            if isinstance(x, int | float) and isinstance(y, int | float):
                name = str(row.get("variant", "model"))
                points.setdefault(name, {}).setdefault(x, []).append(scale * y)
        # A variant has one colour on the whole page.
        known = list(dict.fromkeys([*variants(results), *points]))
        lines = [
            Series(
                name,
                known.index(name),
                sorted(found),
                [Spread(tuple(found[x])) for x in sorted(found)],
            )
            for name, found in points.items()
        ]
        if lines:
            said = "; ".join(f"{line.label} ends at {line.spread[-1].mean:.3g}" for line in lines)
            charts.append(
                line_chart(
                    f"training-{number}",
                    label.partition(",")[0].capitalize(),
                    f"{label} by epoch: {said}.",
                    lines,
                    "epoch",
                    label,
                )
            )
    return charts


_QUANTITIES = {
    "val_accuracy": "validation accuracy, %",
    "train_accuracy": "accuracy in training, %",
    "loss": "training loss, all terms",
    "cross_entropy": "cross-entropy of training",
    "divergence": "divergence from the reference",
    "learning_rate": "learning rate",
}


def layer_charts(variant: str, number: int, rows: Sequence[LayerRow]) -> list[Chart]:
    """A network's layers that hold weights: bit widths, and shares of parameters and MACs."""
    layers = [row for row in rows if row.weight_bits is not None]
    if not layers:
        return []
    names = [row.name for row in layers]
    widths = {
        "weights": [_number(row.weight_bits) for row in layers],
        "activations": [_number(row.activation_bits) for row in layers],
    }
    shares = {
        "parameters": _shares([row.parameters for row in layers]),
        "multiply-accumulates": _shares([row.macs for row in layers]),
    }
    return [
        bar_chart(
            f"bits-{number}",
            f"Bit widths, {variant}",
            f"Weight bits by layer: {_said(layers, 'weight_bits')}.",
            names,
            widths,
            "bits",
        ),
        bar_chart(
            f"cost-{number}",
            f"Share of the cost, {variant}",
            f"Parameters by layer: {_said(layers, 'parameters')}.",
            names,
            shares,
            "% of the network",
            limits=(0, 100),
        ),
    ]


def device_share(results: Results) -> Chart | None:
    """Shares of the device's cells that each design takes; None where none is known.

    Of a design the latest stage that names shares; for devices of the open flow, estimates are
    divided by what the device holds.
    """
    shares: dict[str, tuple[str, dict[str, float]]] = {}
    names = in_order(results, dict.fromkeys(row.variant for row in results.hardware))
    for row in (row for name in names for row in results.hardware if row.variant == name):
        found = _shares_of_device(row)
        if found:
            place = f"{row.variant}, {row.stage.replace('_', ' ')} on {row.device}"
            shares[row.variant] = (place, found)
    if not shares:
        return None
    kinds = [kind for kind in _CELLS if any(kind in found for _, found in shares.values())]
    told = "; ".join(
        f"{place}: {', '.join(f'{_CELLS[kind]} {100 * found[kind]:.1f} %' for kind in found)}"
        for place, found in shares.values()
    )
    return bar_chart(
        "device",
        "Use of the device",
        f"{told}.",
        [_CELLS[kind] for kind in kinds],
        {
            place: [_number(100 * found[kind]) if kind in found else None for kind in kinds]
            for place, found in shares.values()
        },
        "% of the device",
        label_bars=True,
        stacked_legend=True,
    )


_CELLS = {"lut": "LUT", "ff": "FF", "bram": "block RAM", "dsp": "DSP"}


def _shares_of_device(row: HardwareRow) -> dict[str, float]:
    from fpga_flow.compile.targets import TARGETS, OpenTarget  # a second to import

    if row.utilisation:
        return {kind: share for kind, share in row.utilisation.items() if kind in _CELLS}
    devices = (one for one in TARGETS.values() if isinstance(one, OpenTarget))
    capacity = next((one.capacity for one in devices if one.part == row.device), None)
    amounts = {kind: getattr(row, kind) for kind in _CELLS}
    if capacity is None:
        return {}
    return {k: float(n / getattr(capacity, k)) for k, n in amounts.items() if n is not None}


def hardware_charts(variant: str, number: int, rows: Sequence[LayerEstimate]) -> list[Chart]:
    """FINN's estimate by hardware layer: clock cycles an image, and look-up tables."""
    charts = []
    for key, unit in (("cycles", "clock cycles an image"), ("lut", "look-up tables")):
        values = [_number(getattr(row, key)) for row in rows]
        if any(values):
            charts.append(
                bar_chart(
                    f"{key}-{number}",
                    f"Estimated {unit}, {variant}",
                    f"{unit} by layer: {_said(rows, key)}.",
                    [row.name for row in rows],
                    {unit: values},
                    unit,
                    longest=18,
                )
            )
    return charts


def cell_charts(variant: str, number: int, rows: Sequence[LayerCells]) -> list[Chart]:
    """What each layer of the hardware takes of the chip: look-up tables; FIFOs are left out."""
    layers = [row for row in rows if row.lut and not row.name.endswith("_fifo")]
    if not layers:
        return []
    return [
        bar_chart(
            f"cells-{number}",
            f"Look-up tables by layer after synthesis, {variant}",
            f"Look-up tables by layer: {_said(layers, 'lut')}.",
            [row.name for row in layers],
            {"look-up tables": [_number(row.lut) for row in layers]},
            "look-up tables",
            longest=18,
        )
    ]


def _ceiling(results: Results, victims: Iterable[str]) -> Spread | None:
    """The attacked victims' own accuracies, %: what a perfect clone would reach."""
    names = set(victims)
    values = tuple(100 * deployed(row) for row in results.victims if row.variant in names)
    return Spread(values) if values else None


def _number(value: float | None) -> Spread | None:
    return None if value is None else Spread((float(value),))


def _shares(values: Sequence[int | None]) -> list[Spread | None]:
    total = sum(value or 0 for value in values) or 1
    return [_number(None if value is None else 100 * value / total) for value in values]


def _said(rows: Sequence[LayerRow | LayerEstimate | LayerCells], key: str) -> str:
    return ", ".join(f"{row.name} {getattr(row, key):,g}" for row in rows if getattr(row, key))

"""The report's charts of layers and devices: bits, cost, cells, use."""

from collections.abc import Sequence

from fpga_flow.report.charts import Chart, bar_chart
from fpga_flow.report.runs import Spread, in_order
from fpga_flow.report.schema import HardwareRow, LayerCells, LayerEstimate, LayerRow, Results


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
    from fpga_flow.targets import TARGETS, OpenTarget  # a second to import

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


def _number(value: float | None) -> Spread | None:
    return None if value is None else Spread((float(value),))


def _shares(values: Sequence[int | None]) -> list[Spread | None]:
    total = sum(value or 0 for value in values) or 1
    return [_number(None if value is None else 100 * value / total) for value in values]


def _said(rows: Sequence[LayerRow | LayerEstimate | LayerCells], key: str) -> str:
    return ", ".join(f"{row.name} {getattr(row, key):,g}" for row in rows if getattr(row, key))

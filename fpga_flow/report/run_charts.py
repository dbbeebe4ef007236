"""The report's charts: which numbers of the results each one draws."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from divqat_brevitas.extraction.evaluation.summary import (
    SOFT_FAMILY,
    Attacker,
    Group,
    attackers,
    defence_of,
    deployed,
    worst_case,
)
from fpga_flow.report import schema
from fpga_flow.report.charts import (
    COLOURS,
    LINE,
    MARKERS,
    Chart,
    Series,
    bar_chart,
    line_chart,
    shown,
    whiskers,
)
from fpga_flow.report.network_chart import network_charts
from fpga_flow.report.runs import (
    POOLS,
    Spread,
    class_names,
    clone_spread,
    in_order,
    printable,
    variants,
    victim_spread,
)

_CLONE = "worst-case clone's accuracy, %"
_CELLS = {"lut": "LUT", "ff": "FF", "bram": "block RAM", "dsp": "DSP"}
_QUANTITIES = {
    "val_accuracy": "validation accuracy, %",
    "loss": "training loss, all terms",
    "cross_entropy": "cross-entropy of training",
    "divergence": "divergence from the reference",
    "train_accuracy": "accuracy in training, %",
    "learning_rate": "learning rate",
}
_OWN_COLOUR = 7  # layers of a floorplan with a colour of their own; the others share one


def gallery(results: schema.Results) -> list[Chart]:
    """Every chart that the results give."""
    charts = [*victim_accuracy(results), *frontiers(results), *budget_curves(results)]
    charts += [*clone_curves(results), *pool_bars(results), *alarm_bars(results)]
    charts += training_curves(results)
    charts += [*device_share(results), *network_charts(results), *floorplans(results)]
    for rows, draw in (
        (results.layers, layer_charts),
        (results.estimates, estimate_charts),
        (results.cells, cell_charts),
    ):
        by_variant: dict[str, Any] = rows
        for number, variant in enumerate(in_order(results, by_variant)):
            charts += draw(variant, number, by_variant[variant])
    return charts


def victim_accuracy(results: schema.Results) -> list[Chart]:
    """Victims' test accuracy by variant, torch beside the engine; none without victims."""
    names = variants(results)
    torch, engine = (
        [_percent(victim_spread(results, name, attrgetter(field))) for name in names]
        for field in ("accuracy", "accuracy_engine")
    )
    series = {"torch": torch} | ({"engine": engine} if any(engine) else {})
    title, unit = "Victims' test accuracy", "test accuracy, %"
    chart = bar_chart("victims", title, names, series, unit, (0, 109), label_bars=True, longest=12)
    return [chart] if names else []


def frontiers(results: schema.Results) -> list[Chart]:
    """Victim accuracy against worst-case clone accuracy: a chart a kind of queries.

    All oracles, no post-hoc defence, the largest budget of that kind. Each worst case's attack
    is named below.
    """
    charts = []
    for kind in POOLS:
        budget = max((row.budget for row in _bare(results) if row.pool_kind == kind), default=0)
        points = [
            (victim, colour, own, worst)
            for colour, victim in enumerate(variants(results))
            if (own := _percent(victim_spread(results, victim, deployed)))
            and (worst := _worst(Group(victim, kind, budget).of(results.attacks)))
        ]
        if points:
            charts.append(_frontier(kind, budget, points))
    return charts


def _frontier(kind: str, budget: int, points: Sequence[tuple[str, int, Spread, Attacker]]) -> Chart:
    """Points are variant, colour, own accuracy and the worst case."""
    # What all attacks have in common is named once, above their names.
    parts = [worst.method[1:] for *_, worst in points]
    shared = [len(set(column)) == 1 for column in zip(*parts, strict=True)]
    common = " / ".join(part for part, same in zip(parts[0], shared, strict=True) if same)

    def draw(axes: Any) -> None:
        for victim, colour, own, worst in points:
            clone = clone_spread(worst).scaled(100)
            ours = [part for part, same in zip(worst.method[1:], shared, strict=True) if not same]
            name = " ".join([*([" / ".join(ours)] if ours else []), "on", worst.oracle])
            ink, place = COLOURS[colour % 8], ([own.mean], [clone.mean])
            ends = {"xerr": whiskers([own]), "yerr": whiskers([clone])}
            axes.errorbar(*place, **ends, fmt="none", ecolor=ink, capsize=3)
            # Apart from its whiskers, which would hide it in the legend.
            marker = MARKERS[colour % len(MARKERS)]
            label = printable(f"{victim}: {name}")
            axes.plot(*place, marker, label=label, color=ink, markersize=7)
        # Where clone and victim are equal, as far as the points reach.
        low, high = axes.get_xlim()
        axes.autoscale(False)
        axes.axline((low, low), (high, high), color=LINE, alpha=0.4, zorder=0)
        axes.set_xlabel("victim's accuracy, %")
        axes.set_ylabel(_CLONE)
        axes.grid()
        axes.figure.legend(
            loc="outside lower left",
            fontsize=7,  # an attack's name is long
            title=printable(f"Worst-case attack: {common}") if common else None,
            title_fontsize=7,
            alignment="left",
        )

    rows = [
        (victim, shown(own), shown(clone_spread(worst).scaled(100)), worst.name)
        for victim, _, own, worst in points
    ]
    return Chart(
        f"frontier-{kind}",
        f"{POOLS[kind].capitalize()} queries, {budget:,}",
        "Victim's accuracy and the worst-case clone's, %: "
        + "; ".join(f"{victim} {own} and {clone} ({name})" for victim, own, clone, name in rows),
        draw,
        ("Victim", "its accuracy, %", _CLONE, "worst-case attack"),
        rows,
        (5.2, 3.2 + 0.2 * len(points)),
    )


def budget_curves(results: schema.Results) -> list[Chart]:
    """Worst-case clone accuracy over all oracles against budget, and chance.

    A chart a kind of queries, of the victims that were attacked at several budgets. Only the
    attackers count that a victim met at each of them, or more attackers would look like more
    queries; one whose soft responses were asked for only at some of its budgets has no curve.
    """
    chance = 100 / max(len(class_names(results)), 1)
    charts = []
    for kind, name in POOLS.items():
        curves = [(victim, _curve(results, victim, kind)) for victim in variants(results)]
        lines = [
            Series(victim, colour, list(curve), list(curve.values()))
            for colour, (victim, curve) in enumerate(curves)
            if len(curve) > 1
        ]
        if lines:
            title, label = f"{name} queries".capitalize(), "query budget"
            charts.append(line_chart(f"budget-{kind}", title, lines, label, _CLONE, chance=chance))
    return charts


def _curve(results: schema.Results, victim: str, kind: str) -> dict[int, Spread]:
    """The worst case by budget, of the attacks made at every one; {} without such."""
    met = {
        budget: {
            (one.method, one.engine): one
            for one in attackers(Group(victim, kind, budget).of(results.attacks))
        }
        for budget in Group(victim, kind, 0).budgets(results.attacks)
    }
    everywhere = set.intersection(*map(set, met.values())) if met else set()
    # Whether one of the attackers saw more than labels.
    soft = [any(method[0] in SOFT_FAMILY for method, _ in some) for some in met.values()]
    if any(method[0] in SOFT_FAMILY for method, _ in everywhere) != any(soft):
        return {}
    return {
        budget: clone_spread(worst).scaled(100)
        for budget, group in met.items()
        if (worst := worst_case([group[key] for key in group if key in everywhere]))
    }


def pool_bars(results: schema.Results) -> list[Chart]:
    """The worst case by the images that the attacker held; none where only one pool was tried.

    All oracles, no post-hoc defence, the largest budget; data-free attacks hold no images.
    """
    rows = [row for row in _bare(results) if row.pool and row.pool_kind in ("in", "out")]
    most = max((row.budget for row in rows), default=0)
    rows = [row for row in rows if row.budget == most]
    # Out-of-distribution first; the page's readers look for those.
    pools = sorted({(row.pool_kind != "out", row.pool or "") for row in rows})
    if len(pools) < 2:
        return []
    series = {
        name: [
            clone_spread(worst).scaled(100) if worst else None
            for _, pool in pools
            for worst in (_worst(r for r in rows if (r.victim, r.pool) == (name, pool)),)
        ]
        for name in variants(results)
        if any(row.victim == name for row in rows)
    }
    title = f"By the attacker's images, {most:,} queries"
    names = ["victim's kind" if pool == "in" else pool for _, pool in pools]
    colours = [variants(results).index(name) for name in series]
    return [bar_chart("pools", title, names, series, _CLONE, limits=(0, 100), colours=colours)]


def alarm_bars(results: schema.Results) -> list[Chart]:
    """Median queries to the tripwire's alarm, by pool and share of own images: one a victim.

    A bar is missing where fewer than half of the attackers are noticed.
    """
    charts: list[Chart] = []
    for victim in variants(results):
        medians = {
            (row.pool, row.share_in_distribution): row.alarm_after_median
            for row in results.detection
            if row.victim == victim and row.evasion in ("none", "own images")
        }
        pools = list(dict.fromkeys(pool for pool, _ in medians))
        series = {
            f"{share:.0%} own images": [_single(medians.get((pool, share))) for pool in pools]
            for share in sorted({share for _, share in medians})
        }
        if pools:
            title, unit = f"Queries to the alarm, {victim}", "median queries to the alarm"
            charts.append(bar_chart(f"alarm-{len(charts)}", title, pools, series, unit))
    return charts


def clone_curves(results: schema.Results) -> list[Chart]:
    """Worst-case clone accuracy against query budget: a chart an oracle, kind of pool, defence."""
    rows = results.attacks
    victims = dict.fromkeys([*variants(results), *(row.victim for row in rows)])
    panels = dict.fromkeys((row.oracle, row.pool_kind, defence_of(row)) for row in rows)
    charts = []
    for number, (oracle, kind, defence) in enumerate(panels):
        lines = []
        for colour, victim in enumerate(victims):
            group = Group(victim, kind, 0, (oracle,), defence)
            best = {
                budget: clone_spread(worst).scaled(100)
                for budget in group.budgets(rows)
                if (worst := _worst(replace(group, budget=budget).of(rows)))
            }
            if best:
                lines.append(Series(victim, colour, list(best), list(best.values())))
        names = {line.label for line in lines}
        own = tuple(100 * deployed(row) for row in results.victims if row.variant in names)
        band = Spread(own) if own else None  # what a perfect clone would reach
        title = f"{oracle} responses, {POOLS[kind]} queries"
        title += "" if defence == "none" else f", {defence}"
        name = f"clones-{number}"
        charts.append(line_chart(name, title, lines, "query budget", _CLONE, band=band))
    return charts


def training_curves(results: schema.Results) -> list[Chart]:
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
        lines = []
        for name, values in points.items():
            x = sorted(values)
            spread = [Spread(tuple(values[at])) for at in x]
            lines.append(Series(name, known.index(name), x, spread))
        if lines:
            title = label.partition(",")[0].capitalize()
            charts.append(line_chart(f"training-{number}", title, lines, "epoch", label))
    return charts


def layer_charts(variant: str, number: int, rows: Sequence[schema.LayerRow]) -> list[Chart]:
    """A network's layers that hold weights: bit widths, and shares of parameters and MACs."""
    layers = [row for row in rows if row.weight_bits is not None]
    if not layers:
        return []
    names = [row.name for row in layers]
    widths = {
        "weights": [_single(row.weight_bits) for row in layers],
        "activations": [_single(row.activation_bits) for row in layers],
    }
    shares = {
        "parameters": _shares([row.parameters for row in layers]),
        "multiply-accumulates": _shares([row.macs for row in layers]),
    }
    cost = f"Share of the cost, {variant}"
    return [
        bar_chart(f"bits-{number}", f"Bit widths, {variant}", names, widths, "bits"),
        bar_chart(f"cost-{number}", cost, names, shares, "% of the network", limits=(0, 100)),
    ]


def estimate_charts(variant: str, number: int, rows: Sequence[schema.LayerEstimate]) -> list[Chart]:
    """FINN's estimate by hardware layer: clock cycles an image, and look-up tables."""
    names, charts = [row.name for row in rows], []
    for key, unit in (("cycles", "clock cycles an image"), ("lut", "look-up tables")):
        values = [_single(getattr(row, key)) for row in rows]
        if any(values):
            title = f"Estimated {unit}, {variant}"
            bars = {unit: values}
            charts.append(bar_chart(f"{key}-{number}", title, names, bars, unit, longest=18))
    return charts


def cell_charts(variant: str, number: int, rows: Sequence[schema.LayerCells]) -> list[Chart]:
    """What each layer of the hardware takes of the chip: look-up tables; FIFOs are left out."""
    layers = [row for row in rows if row.lut and not row.name.endswith("_fifo")]
    title, unit = f"Look-up tables by layer after synthesis, {variant}", "look-up tables"
    names, values = [row.name for row in layers], {unit: [_single(row.lut) for row in layers]}
    return [bar_chart(f"cells-{number}", title, names, values, unit, longest=18)] if layers else []


def device_share(results: schema.Results) -> list[Chart]:
    """Shares of the device's cells that each design takes; none where none is known.

    Each design is shown at the latest stage that reports shares; for devices of the open flow,
    estimates are divided by what the device holds.
    """
    shares: dict[str, tuple[str, Mapping[str, float]]] = {}
    names = in_order(results, dict.fromkeys(row.variant for row in results.hardware))
    for row in (row for name in names for row in results.hardware if row.variant == name):
        if part := _shares_of_device(row):
            place = f"{row.variant}, {row.stage.replace('_', ' ')} on {row.device}"
            shares[row.variant] = (place, part)
    kinds = [kind for kind in _CELLS if any(kind in part for _, part in shares.values())]
    series = {
        place: [_single(100 * part[kind] if kind in part else None) for kind in kinds]
        for place, part in shares.values()
    }
    names, unit = [_CELLS[kind] for kind in kinds], "% of the device"
    chart = bar_chart(
        "device", "Use of the device", names, series, unit, label_bars=True, stacked_legend=True
    )
    return [chart] if series else []


def _shares_of_device(row: schema.HardwareRow) -> dict[str, float]:
    from fpga_flow.targets import TARGETS, OpenTarget  # a second to import

    if row.utilisation:
        return {kind: share for kind, share in row.utilisation.items() if kind in _CELLS}
    devices = (one for one in TARGETS.values() if isinstance(one, OpenTarget))
    capacity = next((one.capacity for one in devices if one.part == row.device), None)
    amounts = {kind: getattr(row, kind) for kind in _CELLS}
    if capacity is None:
        return {}
    return {k: float(n / getattr(capacity, k)) for k, n in amounts.items() if n is not None}


def floorplans(results: schema.Results) -> list[Chart]:
    """Where place-and-route put the layers of each design on its device."""
    return [
        _floorplan(variant, number, results.placement[variant])
        for number, variant in enumerate(in_order(results, results.placement))
    ]


def _floorplan(variant: str, number: int, placed: schema.Placement) -> Chart:
    """The chip, a colour a layer, numbered as in the table."""
    tiles = dict(_largest_layers(placed))
    across = placed.columns or max((x for at in tiles.values() for x, _ in at), default=0)
    down = placed.rows or max((y for at in tiles.values() for _, y in at), default=0)

    def draw(axes: Any) -> None:
        from matplotlib.colors import to_rgba_array
        from numpy import zeros

        picture, colours = zeros((down + 1, across + 1, 4)), to_rgba_array(COLOURS)
        for colour, at in enumerate(tiles.values()):
            columns, rows = zip(*at, strict=True)
            picture[rows, columns] = colours[colour]
        axes.imshow(picture, interpolation="none")
        for index, at in enumerate(tiles.values(), start=1):
            middle = (sum(place[axis] for place in at) / len(at) for axis in (0, 1))
            axes.text(*middle, str(index), ha="center", va="center", fontweight="bold")
        axes.spines[:].set_visible(True)
        axes.set_xticks([])
        axes.set_yticks([])

    table = [
        (str(index), printable(layer), f"{len(at):,}", _extent(at))
        for index, (layer, at) in enumerate(tiles.items(), start=1)
    ]
    return Chart(
        f"floorplan-{number}",
        f"Where {variant} lies on {placed.device}",
        "Tiles taken: " + "; ".join(f"{layer} {len(at):,}" for layer, at in tiles.items()),
        draw,
        ("No.", "Layer", "Tiles", "Columns, rows"),
        table,
        (5.2, 4.2),
    )


def _largest_layers(placed: schema.Placement) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """The largest layers by themselves, FIFOs with their layer, then the others; largest first."""
    layers: dict[str, set[tuple[int, int]]] = {}
    for name, text in placed.tiles.items():
        tiles = {(int(x), int(y)) for x, y in (tile.split(",") for tile in text.split())}
        layers.setdefault(name.removesuffix("_fifo").removesuffix("_dwc"), set()).update(tiles)
    ordered = sorted(layers, key=lambda name: (-len(layers[name]), name))
    if len(ordered) > _OWN_COLOUR + 1:
        others = set().union(*(layers.pop(name) for name in ordered[_OWN_COLOUR:]))
        layers = {name: layers[name] for name in ordered[:_OWN_COLOUR]} | {"all others": others}
    for name in sorted(layers, key=lambda name: -len(layers[name])):
        if layers[name]:
            yield name, sorted(layers[name])


def _extent(at: Sequence[tuple[int, int]]) -> str:
    columns, rows = zip(*at, strict=True)
    return f"{min(columns)}–{max(columns)}, {min(rows)}–{max(rows)}"


def _bare(results: schema.Results) -> list[schema.AttackRow]:
    """Attacks on victims without a post-hoc defence."""
    return [row for row in results.attacks if defence_of(row) == "none"]


def _worst(rows: Iterable[schema.AttackRow]) -> Attacker | None:
    return worst_case(attackers(rows))


def _percent(spread: Spread | None) -> Spread | None:
    return spread and spread.scaled(100)


def _single(value: float | None) -> Spread | None:
    return None if value is None else Spread((float(value),))


def _shares(values: Sequence[int | None]) -> list[Spread | None]:
    total = sum(value or 0 for value in values) or 1
    return [_single(None if value is None else 100 * value / total) for value in values]

"""Commands on a QONNX file: `divqat check` and `divqat finn-config`."""

from pathlib import Path

import click

from fpga_flow.cli_base import Examples, json_option, print_json


@click.command(cls=Examples, epilog="divqat check runs/smoke/export/qat.onnx")
@click.argument("model", type=click.Path(path_type=Path))
@json_option
def check(model: Path, as_json: bool) -> int:
    """Show a QONNX file's layers, and what FINN refuses.

    Exit code 1 where FINN has no hardware for a node.
    """
    from dataclasses import asdict

    from fpga_flow.compile import legality
    from fpga_flow.console import columns
    from fpga_flow.lowering import lower

    rows = [asdict(row) for row in lower(model).describe()]
    findings = legality(model)
    if as_json:
        refused = [asdict(finding) for finding in findings]
        print_json({"model": str(model), "layers": rows, "findings": refused})
    else:
        click.echo(columns([list(rows[0]), *(list(row.values()) for row in rows)]))
        for finding in findings:
            click.echo(f"FINN: {finding}")
        if not findings:
            click.echo("FINN: every node has hardware")
    return 1 if findings else 0


@click.command(
    "finn-config",
    cls=Examples,
    epilog="""divqat finn-config runs/demo/export/qat.onnx --out finn
              finn build finn/finn.yaml runs/demo/export/qat.onnx""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", metavar="NAME", default="pynq-z1", show_default=True, help="Board.")
@click.option("--clock-ns", type=float, default=10.0, show_default=True, help="Clock period.")
@click.option("--target-fps", type=int, default=1000, show_default=True, help="Images a second.")
@click.option("--folding", type=click.Path(path_type=Path), help="A FINN folding JSON.")
@click.option("--estimates-only", is_flag=True, help="Stop before code generation: no Vivado.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("finn"), show_default=True)
@json_option
def finn_config(
    model: Path,
    target: str,
    clock_ns: float,
    target_fps: int,
    folding: Path | None,
    estimates_only: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write the YAML and JSON files with which stock FINN builds a QONNX file.

    FINN's own command line takes them; our steps are in them by their dotted names.
    """
    from fpga_flow.compile.configuration import VivadoSettings
    from fpga_flow.compile.finn_yaml import write_finn_config

    settings = VivadoSettings(
        target=target, clock_ns=clock_ns, target_fps=target_fps, folding_json=folding
    )
    files = write_finn_config(model, out, settings, estimates_only=estimates_only)
    if as_json:
        print_json({name: path and str(path) for name, path in vars(files).items()})
    else:
        for path in vars(files).values():
            if path is not None:
                click.echo(path)

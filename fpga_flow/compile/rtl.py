"""Collect the code FINN generated into one folder a layer, free of machine paths."""

import shutil
from pathlib import Path

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp

_TEXT = {".v", ".sv", ".vh", ".svh", ".dat", ".tcl", ".cpp", ".hpp", ".h", ".xdc"}


def collect_rtl(model: ModelWrapper, target: Path) -> None:
    """Move the generated code of every node to ``target/<node>/``.

    FINN writes into folders with random names and bakes their absolute paths into the code
    (memory initialisation files). They become ``./file``, relative to the node's folder, as
    simulators and synthesis tools read them. The model's attributes become ``rtl/<node>``.

    Args:
        model: the model after step_hw_codegen; its attributes are changed in place.
        target: the folder to fill; created.
    """
    target.mkdir(parents=True, exist_ok=True)
    for node in model.graph.node:
        operator = getCustomOp(node)
        generated = Path(operator.get_nodeattr("code_gen_dir_ipgen"))
        folder = target / node.name
        shutil.copytree(generated, folder)
        for file in sorted(folder.rglob("*")):
            if file.suffix in _TEXT:
                text = file.read_text(encoding="utf-8")
                file.write_text(text.replace(str(generated), "."), encoding="utf-8")
        for attribute in node.attribute:
            if attribute.s.startswith(str(generated).encode()):
                relative = f"{target.name}/{node.name}"
                attribute.s = attribute.s.replace(str(generated).encode(), relative.encode())

"""Stands for vivado and vitis_hls: records its call and makes the files FINN looks for."""

import json
import os
import re
import sys
from pathlib import Path

tool, script = Path(sys.argv[0]).name, Path(sys.argv[-1])
text = script.read_text()
if os.environ.get("STAND_IN_FAILS") == script.name:
    sys.exit(f"{tool} fails on {script.name}, as asked for")
with Path(os.environ["STAND_IN_LOG"]).open("a") as log:
    call = {"tool": tool, "arguments": sys.argv[1:], "folder": str(Path.cwd()), "script": text}
    log.write(json.dumps(call) + "\n")


def make(path, content=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


if tool == "vitis_hls":
    name = re.fullmatch(r"hls_syn_(.*)\.tcl", script.name)[1]
    make(Path(f"project_{name}/sol1/impl/ip/component.xml"))
elif script.name == "make_project.tcl":
    make(Path("ip/component.xml"))
    make(Path(re.findall(r"^add_files -norecurse (\S+_wrapper\.v)$", text, re.MULTILINE)[-1]))
elif script.name == "ip_config.tcl":
    make(Path("finn_zynq_link.runs/impl_1/top_wrapper.bit"), "stand-in")
    make(Path("finn_zynq_link.runs/impl_1/top_wrapper_timing_summary_routed.rpt"))
    make(Path("finn_zynq_link.gen/sources_1/bd/top/hw_handoff/top.hwh"))
    make(Path("synth_report.xml"), "<RptDoc/>")
else:
    sys.exit(f"unexpected script {script}")

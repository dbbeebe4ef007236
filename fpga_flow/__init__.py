"""From a trained quantized network to hardware: export, compile, simulate, attack, report."""

"""DivQAT quantizers, loss and model-extraction attacks for Brevitas users."""

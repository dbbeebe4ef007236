"""Run directories: settings, the stages that fill one, and sweeps over many."""

"""A worked example of a divqat plug-in: one attack, one defence, one engine, one data set."""

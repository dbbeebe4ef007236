"""What the command line does, as functions: the commands call these and print what they return."""

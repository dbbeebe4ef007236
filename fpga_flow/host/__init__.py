"""The chip around a design: host interface, its protocol, and the host's side of it."""

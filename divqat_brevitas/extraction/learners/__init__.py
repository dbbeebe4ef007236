"""Learners: how an attacker trains a clone on responses, also one that knows the defence."""

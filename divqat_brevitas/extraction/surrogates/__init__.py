"""The clone's networks and how they are trained."""

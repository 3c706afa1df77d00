"""Attacks by structures: energy, forces and stress obey the physics, or an InputError says why not."""

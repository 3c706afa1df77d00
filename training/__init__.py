"""Training of potentials: data, losses, weak supervision, and what is written of it."""

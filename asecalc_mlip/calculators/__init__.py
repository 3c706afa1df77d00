"""ASE calculators: one model, an embedded-atom potential with its parts, a committee."""

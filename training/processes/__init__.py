"""One training on several processes: how they share a batch, and add up what they found."""

"""What is left of a run: the model file with its card, test errors and figures."""

"""The run around its gradient steps: whether it goes on, how long it is, its callbacks and its log."""

"""The frames of a run: read, weighted, divided, and as batches of SchNetPack."""

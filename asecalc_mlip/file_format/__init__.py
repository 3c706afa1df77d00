"""Inside of a model file: its zip archive, the pickle in it, its entries, and what others read in its card."""

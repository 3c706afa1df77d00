"""What models get that are trained already: a ZBL core, isolated atoms and dimers."""

"""Labels of a teacher to pretrain on, and networks that correct it."""

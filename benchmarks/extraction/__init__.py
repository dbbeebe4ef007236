"""The extraction benchmark: a matrix of thefts, one JSON a cell, resumable at any moment.

`plan` says what is run, `victims` trains who is robbed, `cells` runs one cell, `runner` all of
them; statistics and tables are made from the cells' JSON alone.
"""

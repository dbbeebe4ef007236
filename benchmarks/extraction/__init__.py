"""The extraction benchmark: a matrix of attacks, an experiment a row, resumable at any moment.

`scenarios` and `plan` name what is run, `victims` trains who is attacked, `experiment` runs one
experiment, `runner` all of them; `publish` makes tables and figures from their records only.
"""

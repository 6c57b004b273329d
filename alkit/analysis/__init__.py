"""What records say: summaries, figures, effects of quirks, published numbers, released checkpoints.

Comes in: the records of runs, or a checkpoint. Goes out: tables, figures and pages. It changes no run.
"""

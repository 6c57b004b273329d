"""Running many: a study becomes runs, a run a job, and jobs are started, watched and counted.

Comes in: a study's file. Goes out: a folder of runs, and what is to be said about them while they run. It starts
processes and reads what they leave, and knows nothing of how a run is drawn or compared.
"""

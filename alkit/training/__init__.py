"""One cycle's work on the device: training, predictions, pretext tasks, encoders.

Comes in: an experiment, images, a model. Goes out: trained weights, logits, features, measures. It never chooses what
is labelled next, and knows nothing of cycles, folders of runs or studies.
"""

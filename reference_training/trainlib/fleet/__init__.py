"""Many runs of one network on one device, in one process: seeds and methods take turns on a network that stays.

A small transformer leaves a large card idle: between its launches, and while every run starts, compiles and stops
anew. Here the network, its optimiser and one captured training step for each method exist once (or a few times, on
streams of their own: ``lane.py``). A run is the list of its tensors (weights, the optimiser's moments): they are copied
into a lane, an epoch passes, and they are copied back. Every seed's order, crops and masks are drawn once an epoch and
used by all of its methods, so that runs of equal seeds are pairs. No number goes to the host before the epoch is over.

The folders are those of ordinary runs (``training.py``): configuration, log, summary, and at the end a checkpoint with
which ``pretrain_mmae.py --resume`` or an evaluation continues.
"""

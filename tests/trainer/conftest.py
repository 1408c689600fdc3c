"""What the trainer's tests share."""

import os

import torch

# Networks this small gain nothing from a second thread, and lose much where tests share the cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the commands that tests start

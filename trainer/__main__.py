"""``python -m trainer`` is ``kdtrain``; what torchrun and accelerate launch start."""

from trainer.cli import main

main()

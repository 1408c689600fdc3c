"""``python -m trainer`` is ``kdtrain``; what torchrun and accelerate launch start."""

from trainer.children import end_with_parent
from trainer.cli import main

end_with_parent()
main()

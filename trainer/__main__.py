"""``python -m trainer`` is ``kdtrain``; what torchrun and accelerate launch start."""

from trainer.cli.app import main
from trainer.comparison.children import end_with_parent

end_with_parent()
main()

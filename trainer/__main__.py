"""``python -m trainer`` is ``kdtrain``.

Where the working directory may have a ``trainer.py``, it is ``python -m kdcache train``.
"""

from trainer.cli.app import main

main()

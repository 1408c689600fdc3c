import shutil
from pathlib import Path

from logit_server.wishes import Wishes


def test_wishes_are_counted_also_where_the_folder_was_tidied_away(tmp_path: Path) -> None:
    wishes = Wishes(tmp_path / "run")
    assert wishes.count() == 0
    wishes.add()
    wishes.add()
    assert wishes.count() == 2
    shutil.rmtree(tmp_path / "run")
    wishes.add()
    assert wishes.count() == 1

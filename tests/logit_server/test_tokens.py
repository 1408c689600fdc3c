import logging
import shutil
from pathlib import Path

import pytest

from cache_builder.format import ConfigError
from logit_server.tokens import Scope, Token, TokenBook, hash_of, new_token, read_tokens

HASH = hash_of(b"secret")
ANOTHER_HASH = hash_of(b"another")


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_new_token_is_found_by_its_line(tmp_path: Path) -> None:
    token, line = new_token("ann")
    other, another_line = new_token("bob")
    assert token != other
    assert token not in line
    book = TokenBook(None, written(tmp_path / "tokens.toml", line, another_line))
    assert book.find(token.encode()) == Token(hash=hash_of(token.encode()), scopes={Scope.READ})
    assert book.find(other.encode()) != book.find(token.encode())
    assert book.find(token[:-1].encode()) is None
    assert book.find(b"") is None


@pytest.mark.parametrize("name", ["", "two words", "a.b", 'a" = 1', "ü"])
def test_a_name_that_is_no_key_of_the_file_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits"):
        new_token(name)


def test_a_token_has_caches_and_scopes(tmp_path: Path) -> None:
    line = f'ann = {{ hash = "{HASH}", scopes = ["metrics", "admin"], caches = ["vit_l"] }}'
    found = read_tokens(written(tmp_path / "t", "# people", line))["ann"]
    assert (found.scopes, found.caches) == ({Scope.METRICS, Scope.ADMIN}, {"vit_l"})


def test_the_token_of_the_environment_may_do_everything_also_beside_a_file(tmp_path: Path) -> None:
    file = written(tmp_path / "t", f'KDCACHE_TOKEN = {{ hash = "{HASH}" }}')
    found = TokenBook("other", file).find(b"other")
    assert found is not None
    assert (found.scopes, found.caches) == (set(Scope), None)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "holds none; `kdcache serve --new-token NAME` makes one"),
        ("ann = [", "is not TOML"),
        ('ann = "secret"', "'ann'"),
        ("ann = { scopes = ['read'] }", "hash of 'ann'"),
        ('ann = { hash = "secret" }', "hash of 'ann'"),
        (f'ann = {{ hash = "{HASH}", scope = ["read"] }}', r"scope of 'ann'.*did you mean scopes\?"),
        (f'ann = {{ hash = "{HASH}", scopes = ["write"] }}', "'read', 'metrics' or 'admin'"),
        (f'ann = {{ hash = "{HASH}", scopes = [] }}', "scopes of 'ann'"),
        (f'ann = {{ hash = "{HASH}" }}\nbob = {{ hash = "{HASH}" }}', "one hash under two names"),
    ],
)
def test_a_file_that_is_not_right_is_refused_without_showing_secrets(
    line: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        TokenBook(None, written(tmp_path / "t", line))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml, cannot be read"):
        TokenBook(None, tmp_path / "nowhere.toml")


def test_a_worker_that_starts_while_the_file_is_broken_takes_the_tokens_of_the_others(tmp_path: Path) -> None:
    line = f'"ann of lab" = {{ hash = "{HASH}", scopes = ["metrics"], caches = ["vit_l", "ü"] }}'
    file = written(tmp_path / "t", line)
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    first = TokenBook("other", file, folder)
    file.write_text("ann = [")
    second = TokenBook("other", file, folder)
    assert second.find(b"secret") == first.find(b"secret") is not None
    assert second.find(b"other") is not None
    with pytest.raises(ConfigError, match="is not TOML"):
        TokenBook("other", file, tmp_path)


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_changed_file_holds_where_the_folder_of_the_run_was_tidied_away(
    tmp_path: Path, is_taken: bool
) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    file = written(tmp_path / "t", f'ann = {{ hash = "{HASH}" }}')
    book = TokenBook(None, file, folder)
    shutil.rmtree(folder)
    if is_taken:
        folder.mkdir()
        folder.chmod(0o777)
    file.write_text(f'bob = {{ hash = "{ANOTHER_HASH}" }}')
    book.look_again(file)
    assert book.find(b"secret") is None
    assert book.find(b"another") is not None
    assert (folder / "tokens.toml").exists() is not is_taken


def test_a_changed_file_is_read_again_and_a_broken_one_is_not_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = written(tmp_path / "t", f'ann = {{ hash = "{HASH}" }}')
    book = TokenBook(None, file)
    for broken in ("ann = [", "", None):
        file.unlink() if broken is None else file.write_text(broken)
        with caplog.at_level(logging.ERROR):
            book.look_again(file)
            book.look_again(file)
        assert book.find(b"secret") is not None
        assert len(caplog.records) == 1  # said once, not every second
        assert "the tokens of before stay valid" in caplog.text
        caplog.clear()
    written(file, f'bob = {{ hash = "{hash_of(b"new")}" }}')
    book.look_again(file)
    assert book.find(b"secret") is None
    assert book.find(b"new") is not None

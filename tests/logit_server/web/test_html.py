import pytest

from logit_server.web.html import page, percent


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0.0 %"), (1, "100.0 %"), (0.5, "50.0 %"), (0.0012, "0.12 %"), (0.9994, "99.94 %")],
)
def test_shares_have_more_digits_near_the_ends(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_values_are_text() -> None:
    body = bytes(page("error.html", 404, error="<b>", detail="a & b \udcff").body).decode()
    assert "&lt;b&gt;" in body
    assert "a &amp; b ?" in body

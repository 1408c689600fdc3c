from logit_server.served_caches import Catalog, ServedCache
from logit_server.settings import Settings
from logit_server.state import State
from logit_server.web.worker import Web


def test_nothing_is_kept_of_caches_that_are_not_served_any_more(served: ServedCache) -> None:
    catalog = Catalog([served])
    web = Web(State(Settings(caches=(served.cache.location,)), catalog))
    figures, top = web.figures(served), web.top(served)
    web.take(catalog)
    assert (web.figures(served), web.known_top(served)) == (figures, top)
    web.take(Catalog([]))
    assert web.known_top(served) is None
    assert web.figures(served) is not figures

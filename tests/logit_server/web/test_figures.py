import pytest

from cache_builder.format import open_cache
from cache_builder.format.statistics import CONFIDENCE_BINS
from logit_server.served_caches import ServedCache
from logit_server.web.figures import measured
from tests.logit_server.web.page_caches import INVALID_ROW, ROWS, VIEWS, labels


def test_rates_are_in_order_and_say_which_are_worth_it(served: ServedCache) -> None:
    rates = measured(served).rates
    assert [rate.bytes_per_view for rate in rates] == [20, 30, 35, 60]
    assert [rate.on_frontier for rate in rates] == [True, True, False, True]
    assert [rate.chosen for rate in rates] == [False, True, False, False]


def test_what_the_bins_hold_adds_up_to_the_figures_of_the_cache(served: ServedCache) -> None:
    found, told = measured(served), served.cache.statistics()
    assert told is not None
    labelled = sum(label >= 0 for label in labels()) - (labels()[INVALID_ROW] >= 0)
    assert sum(bin.records for bin in found.confidences) == told.labelled == labelled * VIEWS
    assert sum(bin.records for bin in found.entropies) == told.records == (ROWS - 1) * VIEWS
    right = sum(bin.records * bin.top1 for bin in found.confidences if bin.top1 is not None)
    assert right / told.labelled == pytest.approx(told.top1)
    assert [(group.first_view, group.last_view) for group in found.accuracies] == [(0, 1), (2, 3)]
    assert sum(group.top1 for group in found.accuracies) / 2 == pytest.approx(told.top1)
    assert found.entropies[-1].high == pytest.approx(told.entropy_limit)
    assert len(found.confidences) == CONFIDENCE_BINS


def test_of_a_cache_without_measurements_nothing_is_drawn(odd_path: str) -> None:
    cache = open_cache(odd_path)
    found = measured(ServedCache("odd", cache, cache.manifest.completed_id))
    assert not any(figures for _, figures in found)

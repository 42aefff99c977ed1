"""Named protocols, and which of them look at the same views."""

import pytest

from workloads.protocols import PROTOCOLS, Protocol, parse_protocol


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_presets_parse_by_name_and_round_trip(name):
    protocol = parse_protocol(name)
    assert protocol == PROTOCOLS[name] == parse_protocol(protocol.to_json())


def test_views_of_the_papers_protocols():
    views = {name: protocol.views for name, protocol in PROTOCOLS.items()}
    assert (views["centre"], views["views_2x3"], views["views_10x3"], views["full"]) == (1, 6, 30, 1)
    assert PROTOCOLS["views_10x3"].size == 256
    assert PROTOCOLS["segments_25"].frames == 25


def test_same_views_ignores_what_changes_no_score():
    assert Protocol(batch=3).same_views(PROTOCOLS["centre"])
    assert not PROTOCOLS["full"].same_views(PROTOCOLS["centre"])
    assert not Protocol(average="logits").same_views(PROTOCOLS["centre"])


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown protocol 'center'.*did you mean 'centre'"):
        parse_protocol("center")

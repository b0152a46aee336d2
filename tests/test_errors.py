"""Every unknown name is refused in the same words."""

import pytest

from lm.errors import UserError, check_name, lookup, suggestions


def test_lookup_returns_the_entry():
    assert lookup({"lstm": 1, "gru": 2}, "gru", "config.model.cell") == 2


def test_an_unknown_name_is_refused_with_the_known_ones_in_their_order():
    with pytest.raises(UserError) as caught:
        lookup({"lstm": 1, "gru": 2}, "xyz", "config.model.cell")
    assert str(caught.value) == "config.model.cell: unknown 'xyz'; known: lstm, gru"


def test_the_closest_names_are_suggested():
    with pytest.raises(UserError) as caught:
        check_name("lstn", ("gru", "lstm"), "config.model.cell")
    assert str(caught.value) == "config.model.cell: unknown 'lstn'; known: gru, lstm; did you mean lstm?"


def test_long_lists_are_left_out():
    names = [f"name_{i}" for i in range(31)]
    assert suggestions("xyz", names) == ""
    assert suggestions("name_7x", names).startswith("; did you mean name_7")
    assert suggestions("xyz", names[:30]).startswith("; known: name_0, name_1, ")

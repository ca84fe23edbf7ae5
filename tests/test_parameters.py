"""Values as users write them: read as what they are meant to be, or refused in one sentence."""

import pytest

from allkit import AllkitError
from allkit.parameters import as_kind, kind_of, read_parameters
from allkit.train import get_profile


@pytest.mark.parametrize(
    ("value", "kind", "meant"),
    [
        ("no", bool | None, False),
        ("Yes", bool, True),
        ("false", bool, False),
        (1, bool, True),
        ("8.0", int, 8),
        ("1e3", int, 1000),
        (8.0, int | None, 8),
        ("1e-3", float, 0.001),
        (1, float, 1.0),
        ("None", int | None, None),
        ("none", str | None, None),
        (None, float | None, None),
        (11, str, "11"),
        ("11", str, "11"),
    ],
)
def test_what_is_written_is_read_as_what_is_meant(value, kind, meant):
    found = as_kind("x", value, kind)
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("value", "kind"),
    [("perhaps", bool), ("8.5", int), ("eight", int), (True, int), ("None", int), ("nan", float), ("inf", float),
     ("", int), ([1], float), ({}, bool)],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(value, kind):
    with pytest.raises(AllkitError, match=r"the parameter epochs is .*; it must be"):
        as_kind("epochs", value, kind)


@pytest.mark.parametrize("value", [[1, 2], 10**400, {}])
def test_what_cannot_be_a_number_ends_in_a_sentence(value):
    with pytest.raises(AllkitError, match="the parameter fold is"):
        as_kind("fold", value, int | None)


def test_a_cell_declares_names_defaults_and_kinds():
    lines = ["data = 'synthetic'", "epochs: int | None = None", "alpha: 'float | None' = None", "rate = 1e-3",
             "other = f(x)", "flag = False"]  # fmt: skip
    cell = "\n".join(lines)
    assert read_parameters(cell) == {
        "data": ("synthetic", str),
        "epochs": (None, int | None),
        "alpha": (None, float | None),
        "rate": (0.001, float),
        "flag": (False, bool),
    }
    assert kind_of("list[int]") is None


@pytest.mark.parametrize(
    ("changes", "field", "meant"),
    [
        ({"allow_leak": "no"}, "allow_leak", False),
        ({"epochs": "4.0"}, "epochs", 4),
        ({"crop": "None"}, "crop", None),
        ({"learning_rate": "1e-4"}, "learning_rate", 1e-4),
        ({"weights": "none"}, "weights", None),
    ],
)
def test_a_profile_takes_the_words_of_the_command_line(changes, field, meant):
    assert getattr(get_profile("quick", **changes), field) == meant


def test_a_profile_refuses_what_is_no_such_value():
    with pytest.raises(AllkitError, match="allow_leak is 'perhaps'; it must be True or False"):
        get_profile("quick", allow_leak="perhaps")
    with pytest.raises(AllkitError, match="epochs is 'None'; it must be a whole number"):
        get_profile("quick", epochs="None")

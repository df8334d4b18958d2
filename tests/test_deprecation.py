"""Old names: they still work, and the warning tells where, since when, until when and what to write instead."""

import inspect
import sys
import types
import warnings

import pytest
import torch

from matinfo import effective_rank
from matinfo._deprecation import moved_names, renamed_argument, renamed_function

VERSIONS = {"since": "0.2", "removal": "0.4"}


def line_of(caught):
    """Where the warning points to: it has to be the caller's line, not the wrapper's."""
    (warning,) = caught
    return warning.filename, warning.lineno


def here():
    return __file__, inspect.currentframe().f_back.f_lineno


def test_renamed_function_warns_on_the_line_of_the_caller_and_returns_what_it_did():
    erank = renamed_function(effective_rank, "matinfo.erank", **VERSIONS)
    with pytest.warns(FutureWarning) as caught:
        value, place = erank(torch.eye(3)), here()
    assert value.item() == pytest.approx(3)
    assert line_of(caught) == place
    assert str(caught[0].message) == (
        "matinfo.erank is deprecated since matinfo 0.2 and will be removed in 0.4. "
        "Use matinfo.rank.effective_rank."
    )


def test_renamed_function_keeps_the_signature_and_says_so_in_its_docstring():
    erank = renamed_function(
        effective_rank, "matinfo.erank", instead="matinfo.effective_rank(K, alpha)", **VERSIONS
    )
    assert erank.__name__ == "erank"
    assert inspect.signature(erank) == inspect.signature(effective_rank)
    first, note, *rest = erank.__doc__.split("\n\n")
    assert first == effective_rank.__doc__.split("\n\n")[0].strip()
    assert note.startswith(".. deprecated:: 0.2\n   matinfo.erank is deprecated")
    assert note.endswith("Use matinfo.effective_rank(K, alpha).")
    assert "Args:" in "\n\n".join(rest)


@renamed_argument("epsilon", "eps", **VERSIONS)
def rate(Z, *, eps=0.5):
    """A rate."""
    return Z * eps


def test_renamed_argument_is_handed_on_with_a_warning_on_the_line_of_the_caller():
    with pytest.warns(FutureWarning, match=r"rate\(epsilon=\.\.\.\) is deprecated.*Use eps=") as caught:
        value, place = rate(2, epsilon=3), here()
    assert value == 6
    assert line_of(caught) == place


def test_renamed_argument_does_not_warn_under_its_new_name():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rate(2, eps=3) == 6
        assert rate(2) == 1
    assert rate.__doc__.startswith("A rate.\n\n.. deprecated:: 0.2\n")
    assert list(inspect.signature(rate).parameters) == ["Z", "eps"]


def test_renamed_argument_refuses_both_names_at_once():
    with pytest.raises(TypeError, match="'eps' alone, got it and its old name 'epsilon'"):
        rate(2, eps=1, epsilon=1)


def test_renamed_argument_must_exist_under_its_new_name():
    with pytest.raises(TypeError, match="'eps'"):
        renamed_argument("epsilon", "eps", **VERSIONS)(lambda Z: Z)


@pytest.fixture
def old_home(monkeypatch):
    module = types.ModuleType("matinfo.old_home")
    module.__getattr__ = moved_names("matinfo.old_home", {"effective_rank": "matinfo.rank"}, **VERSIONS)
    monkeypatch.setitem(sys.modules, "matinfo.old_home", module)
    return module


def test_moved_name_is_found_with_a_warning_on_the_line_of_the_caller(old_home):
    with pytest.warns(
        FutureWarning, match=r"matinfo\.old_home\.effective_rank .*Import it from matinfo\.rank\."
    ) as caught:
        found, place = old_home.effective_rank, here()
    assert found is effective_rank
    assert line_of(caught) == place


def test_moved_name_can_be_imported_from_its_old_home(old_home):
    with pytest.warns(FutureWarning, match=r"matinfo\.rank"):
        from matinfo.old_home import effective_rank as found
    assert found is effective_rank


def test_a_name_that_never_lived_there_is_an_attribute_error(old_home):
    with pytest.raises(AttributeError, match="'matinfo.old_home' has no attribute 'nothing'"):
        _ = old_home.nothing
    assert not hasattr(old_home, "nothing")

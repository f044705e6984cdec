"""The table of what the suite keeps: other cases are slow, and a name that is not there is a mistake."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import shares


def collected(*names: str) -> list[Any]:
    items = [SimpleNamespace(path=Path("test_x.py"), name=name, marks=[]) for name in names]
    for item in items:
        item.add_marker = item.marks.append
    return items


def test_only_what_is_kept_is_not_slow(monkeypatch):
    monkeypatch.setattr(shares, "KEPT", {"x": {"a": ("1",), "b": ()}})
    items = collected("test_a[1]", "test_a[2]", "test_b", "test_c")
    shares.mark_slow(items, whole=True)
    assert [bool(item.marks) for item in items] == [False, True, True, False]


@pytest.mark.parametrize("names", [("test_a[2]", "test_b"), ("test_a[1]",)])
def test_a_name_that_is_not_there_is_refused(monkeypatch, names):
    monkeypatch.setattr(shares, "KEPT", {"x": {"a": ("1",), "b": ()}})
    shares.mark_slow(collected(*names))
    with pytest.raises(pytest.UsageError, match=r"tests/shares.py: test_x.py has no test_"):
        shares.mark_slow(collected(*names), whole=True)

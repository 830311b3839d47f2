"""The public names: what `__all__` promises, what is loaded on use, and what type checkers see are the same."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import garrison

TREE = ast.parse(Path(garrison.__file__).read_text(encoding="utf-8"))


def seen_by_type_checkers() -> dict[str, str]:
    """Name -> module of every import in the TYPE_CHECKING block."""
    (block,) = [node for node in TREE.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.asname or alias.name: node.module or "" for node in imports for alias in node.names}


def loaded_on_use() -> dict[str, str]:
    names = {name: module for module, names in garrison._NAMES.items() for name in names}
    modules = {name: module.rpartition(".")[0] for name, module in garrison._MODULES.items()}
    assert not names.keys() & modules.keys()
    return names | modules


def test_the_three_lists_are_equal() -> None:
    assert seen_by_type_checkers() == loaded_on_use()
    assert set(garrison.__all__) == {*loaded_on_use(), "__version__"}


def test_all_is_sorted_and_has_no_doubles() -> None:
    assert garrison.__all__ == sorted(set(garrison.__all__))


def test_dir_lists_every_public_name() -> None:
    assert set(garrison.__all__) <= set(dir(garrison))


@pytest.mark.parametrize("name", sorted(garrison.__all__))
def test_every_name_can_be_had(name: str) -> None:
    assert getattr(garrison, name) is not None


@pytest.mark.parametrize(("name", "module"), sorted(loaded_on_use().items()))
def test_a_name_is_the_object_of_its_module(name: str, module: str) -> None:
    home = importlib.import_module(f"garrison.{module}" if module else "garrison")
    assert getattr(garrison, name) is getattr(home, name)


def test_every_error_is_at_the_top() -> None:
    from garrison import errors

    assert set(errors.__all__) <= set(garrison.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        garrison.no_such_name  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]  # the lookup is the test

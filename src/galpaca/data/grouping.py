"""What keeps records together when they are split: a column's value, or the scaffold of a molecule."""

from collections.abc import Callable, Sequence
from typing import Any

from galpaca.data.forms.form import is_missing
from galpaca.data.hashes import value_hash
from galpaca.errors import InputError

KINDS = ("value", "scaffold")


def group_hashes(values: Sequence[Any], kind: str, alone: Sequence[int]) -> list[int]:
    """A hash for each record, equal for those that belong together.

    Args:
        values: of the column.
        kind: ``value``: equal values belong together; ``scaffold``: molecules, as SMILES, with one Murcko scaffold.
        alone: hashes of records without a value: these belong to nobody.

    Raises:
        InputError: scaffolds are requested, and RDKit is not installed.
    """
    name = scaffold_of() if kind == "scaffold" else None
    return [
        own if is_missing(value) or not str(value).strip() else value_hash(name(value) if name else value)
        for value, own in zip(values, alone, strict=True)
    ]


def scaffold_of() -> Callable[[Any], str]:
    """A function from SMILES to its Bemis-Murcko scaffold (J. Med. Chem. 1996, 39, 2887); molecules without a ring
    and texts that are no SMILES keep their own name.

    Raises:
        InputError: RDKit is not installed.
    """
    try:
        from rdkit import Chem, RDLogger
        from rdkit.Chem.Scaffolds import MurckoScaffold
    except ImportError:
        raise InputError(
            "RDKit is not installed, and scaffolds need it",
            where="data.split_kind",
            fix="pip install 'galpaca[chemistry]', or data.split_kind=value",
        ) from None
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]  # its stubs lack it

    def scaffold(smiles: Any) -> str:
        text = str(smiles).strip()
        molecule = Chem.MolFromSmiles(text)
        if molecule is None:
            return text
        return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule) or Chem.MolToSmiles(molecule)

    return scaffold

"""The table of cards: by the names of people and of drivers, and with a site's own."""

import pytest

from galpaca.errors import InputError
from galpaca.estimate.gpus import VARIABLE, gpu_named, gpu_of_driver, known_gpus
from galpaca.estimate.interconnects import node_gb_per_second


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100-PCIE-40GB", "A100-40"),
        ("Tesla V100-SXM2-16GB", "V100-16"),
        ("Tesla V100-SXM2-32GB", "V100-32"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA RTX A6000", "A6000"),
    ],
)
def test_a_driver_and_people_name_the_same_card(reported: str, name: str) -> None:
    found = gpu_of_driver(reported)
    assert found is not None
    assert found == gpu_named(name.lower())


def test_names_are_told_apart() -> None:
    names = [gpu.name.lower() for gpu in known_gpus()]
    assert len(set(names)) == len(names)


def test_an_unknown_card_is_refused_with_those_that_begin_alike_and_how_to_add_it() -> None:
    with pytest.raises(InputError) as caught:
        gpu_named("A100")
    assert "A100-40, A100-80" in str(caught.value.fix)
    assert f"export {VARIABLE}=" in str(caught.value.fix)
    with pytest.raises(InputError, match="no card 'XYZ'") as other:
        gpu_named("XYZ")
    assert "H200" in str(other.value.fix)


def test_a_site_adds_cards_and_replaces_some(monkeypatch: pytest.MonkeyPatch) -> None:
    added = "MI210 memory_gib=63.9 tflops=181 gb_per_second=1638 capability=9.0"
    monkeypatch.setenv(VARIABLE, f"{added}; H200 memory_gib=100 tflops=989 gb_per_second=4800")
    assert gpu_named("mi210").memory_gib == 63.9
    found = gpu_of_driver("AMD Instinct MI210")
    assert found is not None
    assert found.tflops == 181
    assert gpu_named("H200").memory_gib == 100
    assert gpu_named("A100-80").memory_gib == 79.2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("MI210 memory_gib=64", "tflops"),
        ("MI210 memory_gib=64 tflops=181 gb_per_second=-1", "above 0"),
        ("MI210 memory_gib=many tflops=181 gb_per_second=1", "many"),
        ("MI210 memory=64", "'memory' is none of"),
        ("MI210 memory_gib=64 tflops=1 gb_per_second=1 pattern=(", "MI210"),
    ],
)
def test_a_site_that_writes_something_else_is_told(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InputError) as caught:
        known_gpus()
    assert caught.value.where == VARIABLE
    assert said in caught.value.what


def test_interconnects_have_names_or_are_numbers() -> None:
    assert node_gb_per_second("HDR200") == 22.0
    assert node_gb_per_second("12.5") == 12.5
    for name in ("token-ring", "-3", "0", "nan"):
        with pytest.raises(InputError, match="no interconnect"):
            node_gb_per_second(name)

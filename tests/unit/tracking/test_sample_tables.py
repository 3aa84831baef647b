from galpaca.training.tracking.samples import SampleTables


def line(step: int, answer: str, instruction: str = "Name it.") -> dict[str, object]:
    return {"step": step, "category": "c", "instruction": instruction, "input": "", "answer": answer}


def test_answers_stand_beside_earlier_ones_of_the_same_question() -> None:
    tables = SampleTables()
    earlier = tables.tables([line(0, "a"), line(0, "b", "Other."), line(5, "c")])
    assert [step for step, _ in earlier] == [0, 5]
    assert earlier[1][1] == [["Name it.", "c", "c", "step 0: a"]]
    assert tables.table(9, [line(9, "d")]) == [["Name it.", "c", "d", "step 0: a\n\nstep 5: c"]]

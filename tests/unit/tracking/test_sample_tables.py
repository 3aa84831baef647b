from galpaca.runs.lines import SampleLine
from galpaca.tracking.rows import sample_tables


def line(step: int, answer: str, instruction: str = "Name it.") -> SampleLine:
    return SampleLine(step=step, category="c", instruction=instruction, answer=answer)


def test_answers_stand_beside_earlier_ones_of_the_same_question() -> None:
    tables = sample_tables([line(0, "a"), line(0, "b", "Other."), line(5, "c"), line(9, "d")])
    assert [step for step, _ in tables] == [0, 5, 9]
    assert tables[1][1] == [["Name it.", "c", "c", "step 0: a"]]
    assert tables[2][1] == [["Name it.", "c", "d", "step 0: a\n\nstep 5: c"]]

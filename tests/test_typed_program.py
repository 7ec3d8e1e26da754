"""The program that the type checker sees also runs."""

from tests.typed_program import main


def test_it_runs(tmp_path, capsys):
    assert 0 <= main(tmp_path) <= 1
    assert "(5, 8) (5, 8) (64, 3)" in capsys.readouterr().out

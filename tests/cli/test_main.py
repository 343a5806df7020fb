import pytest


@pytest.mark.parametrize(
    ("arguments", "help_of"),
    [
        (["predict", "--trian"], "effnet predict"),
        (["bench", "layers", "--trian"], "effnet bench layers"),
        (["--trian"], "effnet"),
        (["trian"], "effnet"),
    ],
)
def test_what_is_no_option_or_command_is_told_with_whose_help_names_them(mistake, arguments, help_of):
    message = mistake(*arguments)
    assert "trian" in message
    assert message.endswith(f"; see {help_of} --help\n")

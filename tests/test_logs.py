"""The library prints nothing; commands show its messages, warnings on standard error."""

import io
import logging

from asecalc_mlip import logs


def test_messages_are_shown_once_and_only_when_asked_for(capsys):
    logs.LOGGER.info("nobody asked")
    logs.show()
    logs.show()
    logging.getLogger("asecalc_mlip").info("%s structures", 3)
    logs.LOGGER.warning("half of them")
    logs.hide()
    logs.LOGGER.info("nobody asks any more")
    assert capsys.readouterr() == ("3 structures\n", "Warning: half of them\n")


def test_messages_can_go_to_a_file_for_a_while(capsys):
    logs.show()
    with logs.into(io.StringIO()):
        logs.LOGGER.info("into the file")
    logs.LOGGER.info("on the screen")
    logs.hide()
    assert capsys.readouterr().out == "on the screen\n"
    stream = io.StringIO()
    with logs.into(stream):
        logs.LOGGER.warning("a file")
    assert stream.getvalue() == "Warning: a file\n"

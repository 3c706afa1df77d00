"""The library prints nothing; commands show its messages, warnings on standard error."""

import io
import logging
import os

import click
import pytest

from asecalc_mlip import logs
from asecalc_mlip.commands.run_options import RunCommand


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


def test_text_that_the_screen_cannot_show_is_no_error(monkeypatch):
    """On a machine of the locale de_DE, whose encoding is Latin-1, and where output goes to a file of ASCII."""
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    logs.show()
    logs.LOGGER.info("0.5 eV/Å → 0")
    logs.hide()
    assert raw.getvalue() == "0.5 eV/Å ? 0\n".encode("latin-1")


def test_closed_streams_are_no_error(monkeypatch):
    """As `>&- 2>&-` of a shell leaves them."""
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    logs.show()
    logs.LOGGER.info("nobody sees this")
    logs.LOGGER.warning("and this")
    logs.hide()


def test_a_reader_that_is_gone_does_not_end_what_runs(monkeypatch):
    """Ctrl-C ends `| tee log` at once, before a training or a run has come to its end."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        logs.show()
        logs.LOGGER.info("nobody reads this")
        logs.LOGGER.info("and this")
        logs.hide()


def test_dynamics_whose_report_nobody_reads_end_without_a_traceback(monkeypatch, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output, open(tmp_path / "errors", "w") as errors:
        monkeypatch.setattr("sys.stdout", output)
        monkeypatch.setattr("sys.stderr", errors)
        with pytest.raises(SystemExit) as end:
            RunCommand("nvt", callback=lambda: click.echo("stable")).main([])
    assert end.value.code == 141 and (tmp_path / "errors").read_text() == ""


def test_a_stream_that_leads_elsewhere_than_it_was_opened_for_ends_nothing(tmp_path):
    """As where a process takes the place of another that wrote into a file: a pipe has no place in it."""
    reader, writer = os.pipe()
    with open(tmp_path / "out.txt", "w", encoding="ascii") as stream:
        stream.write("begun\n")
        stream.flush()
        os.dup2(writer, stream.fileno())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", stream)
            logs.printable()
    os.close(writer)
    with open(reader, encoding="ascii") as end:
        assert end.read() == ""

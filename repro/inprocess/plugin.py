"""The pytest plugin: ``pytest --repro`` says where a NaN or Inf is born that arrives in anything a test keeps.

Nothing of torch is imported before a test has done so.
"""

import sys
from collections.abc import Generator
from typing import Any

import pytest

SECTION = "repro"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--repro``."""
    parser.getgroup("repro").addoption(
        "--repro",
        action="store_true",
        help="watch every test that uses PyTorch; one that fails says where the first NaN or Inf was born that arrived "
        "in a module's output, a gradient, a parameter, or an operator that raised for it (several times slower)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """The test itself, watched."""
    if not item.config.getoption("--repro") or "torch" not in sys.modules:
        return (yield)
    from repro.inprocess.watching import watch

    with watch() as seen:
        try:
            return (yield)
        except BaseException as error:
            seen.kept(variables_of(error, item))
            raise
        finally:
            seen.stop()
            if seen.finding:
                item.add_report_section("call", SECTION, repr(seen.finding))


def variables_of(error: BaseException, item: pytest.Item) -> dict[str, Any]:
    """The variables of the test that raised, and of the functions in its own file that it was in."""
    found: dict[str, Any] = {}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(item.path):
            found = {**found, **trace.tb_frame.f_locals}
        trace = trace.tb_next
    return found

"""pip's settings as uv's. What pip prints is taken from a real pip, with settings injected in its own variables."""

import subprocess
import sys

import pytest

from repro.environments import pip_settings


def pip_config(tmp_path, monkeypatch, text="", **variables):
    """What `pip config list` prints with this configuration file and these variables."""
    path = tmp_path / "pip.conf"
    path.write_text(text)
    for name in [name for name in pip_settings.os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


CONF = """[global]
index-url = https://example.org/simple
extra-index-url =
    https://one.example.org/simple
    https://two.example.org/simple
[install]
find-links = /wheels/a /wheels/b
"""


def test_a_real_pips_configuration_in_uvs_words(tmp_path, monkeypatch):
    listed = pip_settings.listed(pip_config(tmp_path, monkeypatch, CONF))
    assert pip_settings.translated(listed) == {
        "UV_DEFAULT_INDEX": "https://example.org/simple",
        "UV_EXTRA_INDEX_URL": "https://one.example.org/simple https://two.example.org/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels/a,/wheels/b",
    }


def test_a_variable_stands_over_the_file(tmp_path, monkeypatch):
    listed = pip_settings.listed(pip_config(tmp_path, monkeypatch, CONF, PIP_FIND_LINKS="/wheels/c"))
    assert pip_settings.translated(listed)["UV_FIND_LINKS"] == "/wheels/c"


def test_a_commands_section_stands_over_global_in_either_order():
    lines = ["global.index-url='https://a'", "install.index-url='https://b'"]
    assert pip_settings.listed("\n".join(lines))["index-url"] == "https://b"
    assert pip_settings.listed("\n".join(reversed(lines)))["index-url"] == "https://b"


@pytest.mark.parametrize(("value", "wanted"), [("true", {"UV_NO_INDEX": "1"}), ("false", {}), ("", {})])
def test_no_index(value, wanted):
    assert pip_settings.translated({"no-index": value}) == wanted


def test_uvs_own_settings_stand_alone(monkeypatch):
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://example.org/simple")
    assert pip_settings.uv_settings() == {}


def test_without_any_setting_uv_is_told_nothing():
    assert pip_settings.translated(pip_settings.listed("")) == {}

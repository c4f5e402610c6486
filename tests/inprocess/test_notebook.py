"""A notebook, executed as Jupyter does it, and the page that comes of it."""

import os

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor
from support.hosting import ROOT

MODEL = """
import torch
from torch import nn
import repro

class Ratio(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
    def forward(self, x):
        size = self.inner(x).mul(0)
        return size / size

model = Ratio()
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The executed notebook and its page."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    cells = [
        MODEL,
        "repro.find(model, torch.ones(2, 4))",
        "with repro.watch(model) as seen:\n    model(torch.ones(2, 4)).sum().backward()\nseen.finding",
        "print(seen.finding.report('out').name)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    ExecutePreprocessor(timeout=120, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(tmp_path)}})
    html, _ = HTMLExporter().from_notebook_node(notebook)
    return notebook, html, tmp_path / "out"


@pytest.mark.slow
def test_findings_are_shown_as_tables_and_the_report_is_written(page):
    notebook, html, out = page
    shown = [cell.outputs[0] for cell in notebook.cells[1:3]]
    assert all("text/html" in output.data and "text/plain" in output.data for output in shown)
    assert html.count("<th scope='row'") + html.count('<th scope="row"') > 6
    assert "aten.div.Tensor" in html
    assert shown[0].data["text/plain"].startswith("BAD  float32 invalid operation")
    assert notebook.cells[3].outputs[0].text.strip() == "report.md"
    assert (out / "reproducer.py").exists()
    number = 1 + next(at for at, line in enumerate(MODEL.strip().split("\n")) if "size / size" in line)
    first = f"In [1]:{number}: return size / size"
    assert all(f"(aten.div.Tensor, {first})" in output.data["text/plain"] for output in shown)
    assert f"| source | `In [1]:{number}` |" in (out / "report.md").read_text("utf-8")
    assert "ipykernel" not in shown[0].data["text/plain"] + shown[0].data["text/html"]

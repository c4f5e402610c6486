"""The callback of Lightning's Trainer."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import repro
from inprocess.programs import Net, batches, line_of

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
ZEROS = 7


def module(fault):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = Net(fault)
            self.logged = 0

        def training_step(self, batch, index):
            x, labels = batch
            loss = self.net(x, labels)["loss"]
            self.log("loss", loss)
            self.logged += 1
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters())

    return Module()


def fit(fault, tmp_path, **options):
    from repro.lightning import Callback

    pairs = batches(12, zeros_in=ZEROS)
    data = TensorDataset(torch.cat([x for x, _ in pairs]), torch.cat([labels for _, labels in pairs]))
    callback = Callback(**options)
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(tmp_path), callbacks=[callback], log_every_n_steps=1,
    )  # fmt: skip
    model = module(fault)
    trainer.fit(model, DataLoader(data, batch_size=4))
    return callback, model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", ["forward", "backward"])
def test_step_example_and_line_are_named(fault, tmp_path):
    from repro.lightning import Callback

    kept = []
    start = Callback.on_train_start
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Callback, "on_train_start", lambda self, *args: (kept.append(self), start(self, *args)))
        with pytest.raises(repro.FaultFound):
            fit(fault, tmp_path, out=tmp_path / "out")
    watch, origin = kept[0].finding.answer.watch, kept[0].finding.origin
    assert watch.step == ZEROS + 1
    assert watch.examples == (2,)
    assert (origin.forward_source if fault == "backward" else origin.source) == line_of(fault)
    assert (tmp_path / "out" / "report.md").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_sound_training_is_left_alone(tmp_path):
    callback, model = fit("", tmp_path, out=tmp_path / "out")
    assert callback.finding is None
    assert callback.guard.steps == 12
    assert "training_step" not in vars(model)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_skipped_steps_leave_the_weights_alone(tmp_path):
    callback, model = fit("backward", tmp_path, out=None, then="skip")
    assert callback.guard.skipped == 1
    assert all(bool(tensor.isfinite().all()) for tensor in model.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("then", ["note", "skip"])
def test_manual_optimisation_is_screened_and_no_step_is_made_again(then, tmp_path):
    from repro.lightning import Callback

    class Manual(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.inner, self.calls, self.automatic_optimization = torch.nn.Linear(4, 1), 0, False

        def training_step(self, batch, index):
            self.calls += 1
            loss = self.inner(batch[0]).square().mean() * (float("inf") if index == 2 else 1)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    callback, model = Callback(out=None, then=then), Manual()
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(tmp_path), callbacks=[callback],
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(torch.randn(24, 4)), batch_size=4))
    assert model.calls == 6
    assert callback.guard.steps == 6
    watch = callback.finding.answer.watch
    assert (watch.step, watch.phase) == (3, "backward")
    assert callback.finding.origin is None
    assert "changing the training" in callback.finding.text
    if then == "skip":
        assert model.inner.weight.isfinite().all()

"""Metrics logged by a LightningModule: the value of the whole epoch, reset between epochs, checkpoints as before."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import matinfo
from matinfo import Gram

lightning = pytest.importorskip("lightning")
torchmetrics = pytest.importorskip("torchmetrics")

from matinfo.metrics import EffectiveRank, RankMe, TotalCodingRate  # noqa: E402

Z = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))
LOADER = DataLoader(TensorDataset(Z), batch_size=5)  # the last batch is a single row


class Encoder(lightning.LightningModule):
    """A linear encoder whose features are watched."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(4, 3)
        self.train_rank = EffectiveRank(3, center=True, normalize=False)
        self.validation = torchmetrics.MetricCollection(
            [RankMe(3, normalize=False), TotalCodingRate(3, normalize=False)], prefix="val/"
        )
        self.steps, self.epochs = [], []

    def training_step(self, batch, _):
        features = self.encoder(batch[0])
        self.train_rank(features)
        self.log("rank", self.train_rank, on_step=True, on_epoch=True)
        self.seen = [*getattr(self, "seen", []), features.detach()]
        return features.square().mean()

    def on_train_epoch_end(self):
        self.epochs.append(torch.cat(self.seen))
        self.seen = []

    def validation_step(self, batch, _):
        self.validation.update(self.encoder(batch[0]))
        self.log_dict(self.validation)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's, about lightning's own code
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
def test_logged_metrics_are_those_of_the_epoch(tmp_path):
    torch.manual_seed(0)
    model = Encoder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, LOADER, LOADER)
    logged = trainer.callback_metrics
    last = model.epochs[-1].double()
    expected = matinfo.effective_rank(Gram(last - last.mean(0)))
    torch.testing.assert_close(logged["rank_epoch"].double(), expected, rtol=1e-6, atol=0)
    assert logged["rank_step"].isnan()  # one centred row has no spectrum
    features = model.encoder(Z).detach().double()
    torch.testing.assert_close(logged["val/RankMe"].double(), matinfo.rankme(features), rtol=1e-5, atol=0)
    torch.testing.assert_close(
        logged["val/TotalCodingRate"].double(), matinfo.tcr(features), rtol=1e-5, atol=0
    )

    path = tmp_path / "model.ckpt"
    trainer.save_checkpoint(path)
    assert set(torch.load(path, weights_only=False)["state_dict"]) == {"encoder.weight", "encoder.bias"}
    torch.testing.assert_close(Encoder.load_from_checkpoint(path).encoder.weight, model.encoder.weight)

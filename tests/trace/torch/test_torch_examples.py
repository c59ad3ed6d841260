"""The examples for PyTorch say what their docstrings say; two of them open models that nobody here trained."""

import ast
import importlib
import sys
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("kernels")
EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(before)


def example(name, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        return importlib.import_module(name)
    finally:
        sys.modules.pop(name, None)


def installed(package):
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def test_training_a_language_model_lets_its_gradient_reach_further(monkeypatch, capsys):
    found = example("torch_language_model", monkeypatch).main()
    assert found["loss before"] == pytest.approx(4.62, abs=0.05)
    assert found["loss after"] < 2.2
    assert found["reach before"] < 12 < found["reach after"]
    assert found["far after"] > 2 * found["far before"]
    assert max(found["residual before"], found["residual after"]) < 1e-5
    assert "LanguageModel (LSTM 32→96)" in capsys.readouterr().out


def test_a_packed_sequence_adds_exactly_nothing_after_its_end(monkeypatch):
    module = example("torch_packed_batch", monkeypatch)
    found = module.main()
    parts = np.array(found["parts"])
    for b, length in enumerate(module.LENGTHS):
        assert (parts[length:, b] == 0).all()
        assert (parts[1:length, b] > 0).all()
    assert (parts[0] == 0).all()  # weight_hh meets an initial state of zeros
    alone = np.flatnonzero((parts > 0).sum(1) == 1)
    np.testing.assert_allclose(np.array(found["norms"])[alone], parts[alone].max(1), rtol=1e-5)
    assert parts[1].tolist() == sorted(parts[1])  # the shorter, the nearer to its loss
    assert found["residual"][0] < 1e-5


def test_the_bias_of_a_gate_decides_how_far_a_handwritten_cell_reaches(monkeypatch):
    found = example("torch_handwritten_cell", monkeypatch).main()
    assert found["bias 0"] <= 10
    assert found["bias -3"] >= 28


def test_every_pass_through_a_shared_layer_is_a_use_of_it(monkeypatch):
    module = example("torch_looped_transformer", monkeypatch)
    found = module.main()
    after, before = (np.array(found[name]) for name in ("norm after", "norm before"))
    assert len(after) == len(before) == module.DEPTH
    assert after[-1] > 1.8 * after[0]
    assert before.max() < 1.3 * before.min()
    assert max(found["residual norm after"][0], found["residual norm before"][0]) < 1e-5


def test_the_uses_of_a_looped_layer_are_those_of_untied_layers(monkeypatch):
    module = example("torch_looped_transformer", monkeypatch)
    found = module.look(norm_first=False)
    torch.manual_seed(module.SEED)
    model, x = module.Looped(False), torch.randn(8, 10, 32)
    targets = torch.randint(0, 5, (8, 10))
    layers = [module.Looped(False).layer for _ in range(module.DEPTH)]
    for layer in layers:
        layer.load_state_dict(model.layer.state_dict())
        x = layer(x)
    torch.nn.functional.cross_entropy(model.readout(x).mT, targets).backward()
    for name in ("self_attn.in_proj_weight", "linear1.weight", "norm2.bias"):
        untied = np.stack([dict(layer.named_parameters())[name].grad.numpy() for layer in layers])
        np.testing.assert_allclose(found.step_gradients(f"layer.{name}"), untied, atol=1e-6 * np.abs(untied).max())


def test_a_policy_learns_where_the_reward_reaches_the_cue_and_not_where_it_does_not(monkeypatch):
    found = example("torch_policy", monkeypatch).main()
    near, far = found["10"], found["20"]
    assert near[-1]["reward"] > 0.95
    assert far[-1]["reward"] < 0.7
    assert near[0]["cue"] > 50 * far[0]["cue"]
    assert near[1]["cue"] > 10 * near[0]["cue"]
    assert max(seen["residual"] for seen in near + far) < 1e-5


@pytest.mark.skipif(not installed("silero-vad"), reason="make test installs silero-vad; without it there is no model")
def test_silero_vad_hears_the_buzz_and_remembers_more_than_a_second(monkeypatch):
    found = example("torch_silero_vad", monkeypatch).main()
    assert found["buzz"] > 0.9
    assert found["noise"] < 0.2
    assert found["reach"] * 0.032 > 1
    assert found["residual"] < 1e-5


@pytest.mark.skipif(not installed("silero-vad"), reason="make test installs silero-vad; without it there is no model")
def test_the_voice_detector_is_the_package_s_network_as_onnx_computes_it(monkeypatch):
    """The package's safetensors are of another training run than its ONNX files; so theirs go into our module."""
    import onnx
    from onnx import numpy_helper
    from onnx.reference import ReferenceEvaluator

    module = example("torch_silero_vad", monkeypatch)
    graph = onnx.load(module.weights_file().with_name("silero_vad_16k_op15.onnx"))
    arrays = {each.name: torch.tensor(numpy_helper.to_array(each)) for each in graph.graph.initializer}
    names = {"model.stft.forward_basis_buffer": "stft_conv.weight"}
    for part in ("weight", "bias"):
        names |= {f"model.encoder.{i}.reparam_conv.{part}": f"conv{i + 1}.{part}" for i in range(4)}
        names |= {f"model.decoder.rnn.{part}_{at}": f"lstm_cell.{part}_{at}_l0" for at in ("ih", "hh")}
        names |= {f"model.decoder.decoder.2.{part}": f"final_conv.{part}"}
    detector = module.VoiceDetector()
    detector.load_state_dict({ours: arrays[theirs] for theirs, ours in names.items()})
    chunks = module.chunked(module.signal()[0])
    with torch.no_grad():
        ours = torch.sigmoid(detector(chunks)).numpy()
    evaluator, state, theirs = ReferenceEvaluator(graph), np.zeros((2, 1, 128), np.float32), []
    for chunk in chunks.numpy():
        feeds = {"input": chunk[None], "state": state, "sr": np.array(16_000, np.int64)}
        chance, state = evaluator.run(None, feeds)
        theirs.append(chance.item())
    assert max(theirs) > 0.9
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.skipif(not installed("silero-vad"), reason="make test installs silero-vad; without it there is no model")
def test_the_gates_of_silero_vad_s_safetensors_stand_in_the_order_i_f_g_o(monkeypatch):
    """Each looks like one block of the LSTM in an ONNX file of another run, whose order i o f c ONNX prescribes."""
    import onnx
    from onnx import numpy_helper

    module = example("torch_silero_vad", monkeypatch)
    path = module.weights_file()
    graph = onnx.load(path.with_name("silero_vad_16k_sequence.onnx")).graph
    node = next(node for node in graph.node if node.op_type == "LSTM")
    theirs = next(numpy_helper.to_array(each)[0] for each in graph.initializer if each.name == node.input[2])
    ours = module.load(path).lstm_cell.weight_hh_l0.detach().numpy()
    alike = np.corrcoef([*(block.ravel() for block in np.split(ours, 4)), *(b.ravel() for b in np.split(theirs, 4))])
    assert alike[:4, 4:].argmax(1).tolist() == [0, 2, 3, 1]
    assert alike[:4, 4:].max(1).min() > 0.9


@pytest.mark.skipif(not installed("g2p-en"), reason="make test installs g2p-en; without it there is no model")
def test_the_first_letter_of_a_word_keeps_much_of_the_last_state_s_gradient(monkeypatch, capsys):
    module = example("torch_g2p", monkeypatch)
    carried = module.main()
    assert {word: len(parts) for word, parts in carried.items()} == {word: len(word) + 1 for word in module.WORDS}
    assert carried["knight"][0] == pytest.approx(0.37, abs=0.02)
    assert min(min(parts) for parts in carried.values()) > 0.1
    text = capsys.readouterr().out
    assert "knight begins with N" in text
    assert "physics begins with F" in text
    assert "through begins with TH" in text


def numpy_gru(path):
    """The package's own three functions, without what stands around them: importing it would fetch corpora."""
    with warnings.catch_warnings():  # an escape in one of its strings is of an older Python
        warnings.simplefilter("ignore")
        tree = ast.parse(path.with_name("g2p.py").read_text(encoding="utf-8"))
    wanted = {"sigmoid", "grucell", "gru"}
    bodies = [n for c in tree.body if isinstance(c, ast.ClassDef) for n in c.body if getattr(n, "name", "") in wanted]
    space = {"np": np}
    exec(compile(ast.Module(bodies, []), "g2p.py", "exec"), space)
    return type("Package", (), {name: space[name] for name in wanted})()


@pytest.mark.skipif(not installed("g2p-en"), reason="make test installs g2p-en; without it there is no model")
def test_the_speller_s_states_are_those_of_the_package_s_own_numpy_code(monkeypatch):
    module = example("torch_g2p", monkeypatch)
    path = module.weights_file()
    model, package = module.load(path), numpy_gru(path)
    with np.load(path, allow_pickle=False) as arrays:
        weights = {name: arrays[name] for name in arrays}
    for word in module.WORDS:
        ids = module.spelled(word)
        x = weights["enc_emb"][ids.numpy()]
        theirs = package.gru(x, x.shape[1], *(weights[f"enc_{part}"] for part in ("w_ih", "w_hh", "b_ih", "b_hh")))
        with torch.no_grad():
            ours, _ = model.encoder(model.letters(ids))
        np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize(("name", "package"), [("torch_silero_vad", "silero-vad"), ("torch_g2p", "g2p-en")])
def test_without_its_package_an_example_says_what_to_install(name, package, monkeypatch, capsys):
    module = example(name, monkeypatch)

    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(module.metadata, "distribution", missing)
    assert module.main() == {}
    assert capsys.readouterr().out == f"{package} is not installed: pip install --no-deps {package}\n"

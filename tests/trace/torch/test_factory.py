"""What a factory may be, and what is said of one that is none."""

import sys
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from bptt.errors import InputError
from bptt.trace.torch.factory import Given, call, default_losses, given, load

SOURCE = """
import torch
from torch import nn
calls = []
def pair(): return nn.Linear(2, 3), torch.ones(4, 2)
def triple(): return nn.Linear(2, 3), torch.ones(4, 2), lambda out: out.sum()
def named(): return {"model": nn.Linear(2, 3), "batch": torch.ones(4, 2), "step": lambda model, batch: None}
def alone(): return nn.Linear(2, 3)
def needs(argument): return None
def breaks(): raise ValueError("no data\\nhere")
def four(): return 1, 2, 3, 4
def number(): return nn.Linear(2, 3), torch.ones(4, 2), 5
def words(): return {"model": nn.Linear(2, 3), "data": 1}
def none(): return None
def string(): return "model", 1
class Kind:
    @staticmethod
    def make(): return nn.Linear(2, 3), torch.ones(4, 2)
model = nn.Linear(2, 3)
constant = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("made", "broken", "needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "made.py").write_text(SOURCE)
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needy.py").write_text("import surely_not_there")
    yield tmp_path
    for name in ("made", "broken", "needy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("source", ["made", "made.py", "./made.py"])
def test_a_factory_is_found_by_module_and_by_file(folder, source):
    before = list(sys.path)
    found = load(f"{source}:pair")
    assert isinstance(found.model, nn.Linear)
    assert found.batch.shape == (4, 2)
    assert found.losses is None
    assert found.step is None
    assert sys.path == before


def test_a_third_value_is_losses_and_a_step_goes_by_its_name(folder):
    assert load("made:triple").losses(torch.ones(2)) == 2
    assert load("made:named").step is not None
    assert load("made:named").losses is None
    assert load("made:alone").batch is None
    assert load("made:Kind.make").batch is not None


def test_a_named_tuple_is_read_by_its_names():
    class Mine(NamedTuple):
        step: object
        model: object

    found = given(Mine(step=print, model=nn.Linear(1, 1)))
    assert found.step is print
    assert found.batch is None
    assert given(Given(found.model, 1)).batch == 1


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("made", "got 'made', expected module:name or path/to/file.py:name"),
        ("made:", "got 'made:', expected module:name"),
        ("nowhere:make", "got no module nowhere"),
        ("made.below:make", "got importing made.below raised|no module made.below"),
        ("nowhere.py:make", "got no file nowhere.py"),
        ("made:nothing", "got no nothing in made, expected one of pair, triple"),
        ("made:constant", "got int, expected a function without arguments"),
        ("made:model", "got Linear, expected a function without arguments. Write a function that returns it."),
        ("made:needs", "it raised TypeError: needs\\(\\) missing 1 required positional argument"),
        ("made:breaks", "it raised ValueError: no data here"),
        ("made:four", "it returned tuple of 4, expected \\(model, batch\\)"),
        ("made:none", "it returned NoneType"),
        ("made:number", "got losses of int, expected a function. Put further inputs into the batch"),
        ("made:words", "a mapping with model, data, expected names among model, batch, losses, step"),
        ("made:string", "a model of str, expected a torch.nn.Module"),
        ("broken:make", "importing broken raised ZeroDivisionError: division by zero"),
        ("broken.py:make", "importing broken.py raised ZeroDivisionError"),
        ("needy:make", "needy needs surely_not_there, which is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder, spec, says):
    with pytest.raises(InputError, match=says) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_a_batch_is_an_argument_several_or_named_ones():
    class Adds(nn.Module):
        def forward(self, a, b=0):
            return a, b

    assert call(Adds(), 1) == (1, 0)
    assert call(Adds(), (1, 2)) == (1, 2)
    assert call(Adds(), {"b": 2, "a": 1}) == (1, 2)
    packed = pack_sequence([torch.ones(2, 1)])
    assert call(Adds(), packed) == (packed, 0)


def test_default_losses_stand_at_the_steps():
    out = torch.zeros(4, 6, 3, dtype=torch.float64, requires_grad=True)
    for T, axis in ((4, 0), (6, 1)):
        losses = default_losses({"ids": torch.ones(6, dtype=torch.int64), "out": [out]}, T)
        assert losses.shape == (T,)
        (g,) = torch.autograd.grad(losses[2], out)
        reached = g.movedim(axis, 0).flatten(1).ne(0).all(1)
        assert reached.tolist() == [k == 2 for k in range(T)]
    assert default_losses(out, 5).shape == default_losses(out).shape == (1,)
    assert default_losses(torch.ones(())).shape == (1,)


def test_default_losses_tell_time_from_batch_where_sizes_do_not():
    out = torch.zeros(4, 4, 3, requires_grad=True)
    (first,) = torch.autograd.grad(default_losses(out, 4)[1], out)
    (second,) = torch.autograd.grad(default_losses(out, 4, batch_first=True)[1], out)
    assert first[1].ne(0).all()
    assert second[:, 1].ne(0).all()


def test_default_losses_read_packed_outputs_and_refuse_what_is_not_floating():
    packed = pack_sequence([torch.ones(5, 2), torch.ones(3, 2)])
    assert default_losses(packed, 5).shape == (5,)
    with pytest.raises(InputError, match="expected a floating tensor among them"):
        default_losses(torch.ones(3, dtype=torch.int64), 3)

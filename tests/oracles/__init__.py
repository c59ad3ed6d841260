"""Independent answers to "what did this use of this weight add to the gradient?".

equations.py      the papers' equations, one gate and one sequence at a time, on real or complex numbers
untied.py         the same network with its own copy of every parameter at every step, and the table C[k, t] from it
torch_twin.py     the same network in torch.nn, float64
problems.py       random networks and batches, fixed ones and as Hypothesis strategies

None of these uses code of `bptt`. Two files stand between them and the package:

bridge.py         a problem as `bptt` takes it
mutate.py         wrong versions of a module of `bptt`, and how far their numbers are from the oracle's
"""

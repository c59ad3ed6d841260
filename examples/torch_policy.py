"""A recurrent policy and a reward that comes late: where in time does REINFORCE learn from?

    python examples/torch_policy.py

A cue of 0 or 1 is shown at the first step; then there is only noise; at the last step the agent has to say which it
was, and gets a reward of 1 if it is right. It acts at every step, though only the last action counts, and every action
is made more likely by the advantage of its episode, as REINFORCE has it. The policy is an `nn.GRUCell` in a loop.

Rows of the map are actions, columns are uses of the cell. What has to be learnt stands in one entry: what the last
action says to the use at step 1, which sees the cue. Over 10 steps it is there at the start, a hundredth of Σ‖C‖, and
the reward is sure after 40 updates, whereupon all advantages are 0 and nothing is left to learn. Over 20 steps it is a
hundred times smaller, the noise of 19 actions that do not matter drowns it, and the reward stays that of guessing.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads; such small products gain nothing from more

import torch
from torch import Tensor, nn

import bptt
from bptt.report.terminal import number

LENGTHS, EPISODES, UPDATES, EVERY, SEED = (10, 20), 128, 40, 20, 0


class Policy(nn.Module):
    """Observations → scores of two actions at each step."""

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.cell, self.actor = nn.GRUCell(2, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, 2) → (T, B, 2)."""
        h, out = x.new_zeros(x.shape[1], self.cell.hidden_size), []
        for row in x:
            h = self.cell(row, h)
            out.append(self.actor(h))
        return torch.stack(out)


def episodes(T: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Observations (T, B, 2), cue and noise, and the cues (B,)."""
    cue = torch.randint(0, 2, (EPISODES,), generator=draw)
    x = torch.zeros(T, EPISODES, 2)
    x[0, :, 0] = 2 * cue - 1.0
    x[:, :, 1] = 0.3 * torch.randn(T, EPISODES, generator=draw)
    return x, cue


def losses_of(policy: Policy, x: Tensor, cue: Tensor, draw: torch.Generator) -> tuple[Tensor, float]:
    """(T,) −log π(a_t) · advantage of each action, and the mean reward."""
    scores = policy(x).log_softmax(-1)
    chances = scores.detach().exp().reshape(-1, 2)
    actions = torch.multinomial(chances, 1, generator=draw).reshape(len(x), EPISODES)
    reward = (actions[-1] == cue).float()
    said = scores.gather(2, actions[..., None])[..., 0]
    return -(said * (reward - reward.mean())).mean(1), float(reward.mean())


def learn(T: int) -> list[dict[str, float]]:
    """Train over T steps, and trace a batch now and then."""
    torch.manual_seed(SEED)
    policy, draw, W = Policy(), torch.Generator().manual_seed(SEED), "cell.weight_ih"
    optimiser = torch.optim.Adam(policy.parameters(), lr=1e-2)
    seen = []
    for update in range(UPDATES + 1):
        x, cue = episodes(T, draw)
        optimiser.zero_grad()
        if update % EVERY:
            losses, _ = losses_of(policy, x, cue, draw)
            losses.sum().backward()
        else:
            with bptt.trace(policy, map=True) as trace:
                losses, reward = losses_of(policy, x, cue, draw)
                trace.backward(losses)
            table = trace.ledger.map(W)
            facts = {"update": update, "reward": reward, "cue": float(table[-1, 0]), "all": float(table.sum())}
            seen.append(facts | {"residual": trace.ledger.residual})
        optimiser.step()
    return seen


def main() -> dict[str, list[dict[str, float]]]:
    """Train over both lengths; returns what was seen."""
    found = {}
    for T in LENGTHS:
        found[str(T)] = learn(T)
        print(f"a cue at step 1, asked for at step {T}; {EPISODES} episodes, seed {SEED}, C[k,t] of cell.weight_ih")
        for facts in found[str(T)]:
            print(
                f"  update {facts['update']:2}   reward {facts['reward']:.2f}   from all actions to all uses, Σ‖C‖: "
                f"{number(facts['all']):>7}   from the last action to the cue, ‖C[{T},1]‖: {number(facts['cue']):>7}"
            )
    return found


if __name__ == "__main__":
    main()

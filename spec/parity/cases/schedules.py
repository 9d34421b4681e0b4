"""Learning rates over 1,000 steps."""
import math

import torch
from torch.optim import lr_scheduler as S

from parity import draw, row

STEPS = 1000


def runs_of(values):
    """Runs of equal numbers as [number, times]; a number alone as itself."""
    runs = []
    for v in values:
        if runs and runs[-1][0] == v:
            runs[-1][1] += 1
        else:
            runs.append([v, 1])
    return [v if n == 1 else [v, n] for v, n in runs]


def rates(scheduler, value):
    p = torch.nn.Parameter(torch.zeros(1))
    opt = torch.optim.SGD([p], lr=value)
    s, found = scheduler(opt), []
    for _ in range(STEPS):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    return found


def schedule(lua, scheduler, value):
    """gr.schedule.LUA."""
    row("schedule", lambda dtype: {"rates": runs_of(rates(scheduler, value))}, ["f64"], title=lua)


schedule("constant(0.25)", lambda o: S.ConstantLR(o, factor=1.0), 0.25)
schedule("step(0.5, { every = 150, gamma = 0.3 })", lambda o: S.StepLR(o, 150, gamma=0.3), 0.5)
schedule("step(0.5, { at = { 200, 700 } })", lambda o: S.MultiStepLR(o, [200, 700]), 0.5)
schedule("exponential(2.0, { gamma = 0.995 })", lambda o: S.ExponentialLR(o, 0.995), 2.0)
schedule("linear(0.25, 1.0, { steps = 300 })", lambda o: S.LinearLR(o, 0.25, 1.0, 300), 1.0)
schedule("cosine(0.1, { steps = 1000, min = 0.01 })", lambda o: S.CosineAnnealingLR(o, 1000, 0.01), 0.1)
schedule("warmup(cosine(0.1, { steps = 900 }), { steps = 100, from = 0.2 })",
         lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.2, 1.0, 100), S.CosineAnnealingLR(o, 900)], [100]), 0.1)
schedule("one_cycle(0.4, { steps = 1001 })", lambda o: S.OneCycleLR(o, 0.4, total_steps=STEPS + 1), 0.4)
schedule("one_cycle(0.4, { steps = 1001, pct_start = 0.4, anneal = 'linear', three_phase = true })",
         lambda o: S.OneCycleLR(o, 0.4, total_steps=STEPS + 1, pct_start=0.4, anneal_strategy="linear", three_phase=True), 0.4)


def reported(step):
    """A loss that falls, stalls, and is noisy."""
    return math.exp(-min(step, 400) / 150) + 0.05 * float(draw(step, [1])[0])


def plateau(lua, **options):
    def make(dtype):
        opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        s, found = S.ReduceLROnPlateau(opt, **options), []
        for step in range(1, STEPS + 1):
            found.append(opt.param_groups[0]["lr"])
            s.step(reported(step))
        return {"rates": runs_of(found)}

    row("schedule", make, ["f64"], title=lua, reported=True)


plateau("plateau(0.5, { patience = 20, factor = 0.5 })", patience=20, factor=0.5)
plateau("plateau(0.5, { patience = 5, factor = 0.8, cooldown = 30, threshold = 0.01, threshold_mode = 'abs', min = 0.01 })",
        patience=5, factor=0.8, cooldown=30, threshold=0.01, threshold_mode="abs", min_lr=0.01)
plateau("plateau(0.5, { patience = 8, mode = 'max' })", patience=8, mode="max")

"""Temperature scaling: one number that makes a classifier's confidence mean what it says."""

import torch
from torch.nn import functional


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature by which logits [n, categories] are divided for the least cross entropy with labels [n].

    On validation images, by the method of Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    log_temperature = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")
    exact = logits.double()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(exact / log_temperature.exp(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    # A model that is right on every image would be made ever surer.
    return float(log_temperature.exp().clamp(0.05, 20.0).item())

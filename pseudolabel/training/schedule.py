"""Learning-rate schedules as plain functions of the step.

torch's schedulers are not used, since a run may be continued with more epochs: `PolynomialLR` multiplies its
last rate again at every step, so that rounding adds up and a resumed run depends on where it was cut, and
`LambdaLR` keeps a counter beside ours that would have to agree with it. A function of (step, steps in all)
gives the same rate after every interruption.
"""


def poly(step: int, total: int, power: float = 0.9) -> float:
    """(1 - step / total) ** power, the factor on the learning rate at a step 0..total.

    Source: DeepLab (arXiv 1606.00915), used by IRN per step (`paper` 5.1).
    """
    if total <= 0:
        raise ValueError(f"total is {total}; a schedule has at least one step")
    return float((1 - min(step, total) / total) ** power)

"""Learning-rate schedules as plain functions of the step."""


def poly(step: int, total: int, power: float = 0.9) -> float:
    """(1 - step / total) ** power, the factor on the learning rate at a step 0..total.

    Source: DeepLab (arXiv 1606.00915), used by IRN per step (`paper` 5.1).
    """
    if total <= 0:
        raise ValueError(f"total is {total}; a schedule has at least one step")
    return float((1 - min(step, total) / total) ** power)

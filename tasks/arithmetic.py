"""The smallest tasks there are: numbers in, a number out."""

from __future__ import annotations

from tasks.app import app


@app.task(name="tasks.add")
def add(x: float, y: float) -> float:
    """Return the sum of two numbers."""
    return x + y


@app.task(name="tasks.mul")
def mul(x: float, y: float) -> float:
    """Return the product of two numbers."""
    return x * y


@app.task(name="tasks.xsum")
def xsum(numbers: list[float]) -> float:
    """Return the sum of a list of numbers, such as the results of a group."""
    return sum(numbers)

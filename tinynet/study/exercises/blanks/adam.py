"""Exercise: a step of Adam.

Adam keeps two running means for each parameter, one of the gradient and one of its square:

    m = beta_1 m + (1 - beta_1) g                                 all of one shape, (size,)
    v = beta_2 v + (1 - beta_2) g^2

It divides the first by the root of the second, so a step is about as long as the learning rate, however large the
gradients are. Both means start at 0, so they are too small at first: after t steps, by the factors 1 - beta_1^t and
1 - beta_2^t. The size of the step corrects this bias, with t = 1 in the first step, t = 2 in the second, and so on:

    params = params - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t)  m / (sqrt(v) + epsilon)

(Kingma & Ba's Algorithm 1 and PyTorch add epsilon to the root of the corrected v instead. The checker accepts both.)

Check your answer:   python -m tinynet exercise adam exercises/adam.py
Then compare it with `Adam` in tinynet/optimizers.py.
"""

import numpy as np  # noqa: F401 (for your answer)


class Adam:
    """Adaptive moments."""

    def __init__(self, learning_rate, beta_1, beta_2, epsilon):
        self.learning_rate, self.epsilon = learning_rate, epsilon
        self.beta_1, self.beta_2 = beta_1, beta_2
        self.m = self.v = 0.0  # arrays from the first step on
        self.t = 0  # steps taken

    def step(self, params, grads):
        """Change params in place; do not change grads."""
        # The first step has t = 1. Write into the caller's array: params -= ..., not params = params - ...
        raise NotImplementedError("your turn: change params in place")

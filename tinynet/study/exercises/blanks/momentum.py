"""Exercise: a step of stochastic gradient descent with momentum.

Plain gradient descent, params -= learning_rate grads, has no memory. With momentum, the parameters move like a ball
that rolls downhill: the gradient pushes, and part of the last step's velocity is kept.

    velocity = momentum velocity - learning_rate grads            all of one shape, (size,)
    params   = params + velocity

Where the gradients agree, the steps grow by a factor of up to 1 / (1 - momentum). Where their sign keeps changing,
they cancel out.

Check your answer:   python -m tinynet exercise momentum exercises/momentum.py
Then compare it with `SGD` in tinynet/optimizers.py.
"""

import numpy as np  # noqa: F401 (for your answer)


class Momentum:
    """SGD with momentum."""

    def __init__(self, learning_rate, momentum):
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocity = 0.0  # an array from the first step on

    def step(self, params, grads):
        """Change params in place; do not change grads."""
        # The next step needs self.velocity. Write into the caller's array with params += ... or params[...] = ...;
        # params = ... would only give your own variable a new array.
        raise NotImplementedError("your turn: change params in place")

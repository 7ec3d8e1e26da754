"""Exercise: a step of stochastic gradient descent with momentum.

Plain gradient descent forgets: params -= learning_rate grads. With momentum the parameters move like a ball that rolls
downhill. The gradient pushes, and a part of the last step's velocity is kept:

    velocity = momentum velocity - learning_rate grads            all of one shape, (size,)
    params   = params + velocity

In a direction in which the gradients agree, the steps grow, up to 1 / (1 - momentum) times; where their sign changes,
they cancel.

Check your answer:   python -m tinynet exercise momentum examples/exercises/momentum.py
Then compare it with `SGD` in tinynet/optimizers.py.
"""

import numpy as np  # noqa: F401 (for your answer)


class Momentum:
    """SGD with momentum."""

    def __init__(self, learning_rate, momentum):
        self.learning_rate, self.momentum = learning_rate, momentum
        self.velocity = 0.0  # an array from the first step on

    def step(self, params, grads):
        """Change params in place; leave grads alone."""
        # self.velocity has to be there in the next step. The caller keeps its params: params = ... would only give your
        # own variable a new array, but params += ... and params[...] = ... write into theirs.
        raise NotImplementedError("your turn: change params in place")

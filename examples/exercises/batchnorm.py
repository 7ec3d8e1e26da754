"""Exercise: the backward pass of batch normalization, in training.

Each feature of the batch is brought to mean 0 and variance 1, then scaled and moved by parameters:

    mean = 1/n sum x          var = 1/n sum (x - mean)^2          (features,), sums over the batch
    x_hat = (x - mean) / sqrt(var + epsilon)                      (n, features)
    y = gamma x_hat + beta                                        gamma, beta (features,)

gamma and beta are as in a dense layer: dgamma = sum dy x_hat, dbeta = sum dy, over the batch.

An x acts on y in three ways: directly, through the mean, and through the variance. With dx_hat = gamma dy:

    dvar  = sum dx_hat (x - mean) (-1/2) (var + epsilon)^(-3/2)
    dmean = - sum dx_hat / sqrt(var + epsilon)
    dx    = dx_hat / sqrt(var + epsilon)  +  dvar 2 (x - mean) / n  +  dmean / n

Put in one, and written with x_hat, dgamma and dbeta, this is one line. Two checks in your head: each feature of
dx sums to 0, and so does dx x_hat (nearly, because of epsilon), as y is the same when all x are moved or stretched.

Check your answer:   python -m tinynet exercise batchnorm examples/exercises/batchnorm.py
Then compare it with `BatchNorm` in tinynet/layers/batchnorm.py, which also has running statistics to predict with.
"""

import numpy as np


class BatchNorm:
    """y = gamma x_hat + beta, with the batch's own mean and variance."""

    def __init__(self, gamma, beta, epsilon):
        self.gamma, self.beta, self.epsilon = gamma, beta, epsilon

    def forward(self, x):
        mean, var = x.mean(axis=0), x.var(axis=0)
        self.inv_std = 1 / np.sqrt(var + self.epsilon)  # (features,)
        self.x_hat = (x - mean) * self.inv_std  # (n, features); backward needs both
        return self.gamma * self.x_hat + self.beta

    def backward(self, dy):
        """Set self.dgamma and self.dbeta, and return dx."""
        # x - mean is x_hat / inv_std. In dvar and dmean look for the sums that dgamma and dbeta are.
        raise NotImplementedError("your turn: set self.dgamma and self.dbeta, and return dx")

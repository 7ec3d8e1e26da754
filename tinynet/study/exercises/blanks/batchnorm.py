"""Exercise: the backward pass of batch normalization, in training.

Over the batch, each feature is brought to mean 0 and variance 1, then scaled and shifted by parameters:

    mean = 1/n sum x          var = 1/n sum (x - mean)^2          (features,), sums over the batch
    x_hat = (x - mean) / sqrt(var + epsilon)                      (n, features)
    y = gamma x_hat + beta                                        gamma, beta (features,)

The gradients of gamma and beta are found as in a dense layer: dgamma = sum dy x_hat and dbeta = sum dy, over the batch.

Each x affects y in three ways: directly, through the mean and through the variance. With dx_hat = gamma dy:

    dvar  = sum dx_hat (x - mean) (-1/2) (var + epsilon)^(-3/2)
    dmean = - sum dx_hat / sqrt(var + epsilon)
    dx    = dx_hat / sqrt(var + epsilon)  +  dvar 2 (x - mean) / n  +  dmean / n

Combined and written with x_hat, dgamma and dbeta, this is one line. Two checks: for each feature, the sum of dx over
the batch is 0, and so is the sum of dx x_hat (nearly, because of epsilon). The reason: shifting or scaling all x of a
feature does not change y.

Check your answer:   python -m tinynet exercise batchnorm exercises/batchnorm.py
Then compare it with `BatchNorm` in tinynet/layers/batchnorm.py, which also keeps running statistics for prediction.
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
        # x - mean is x_hat / inv_std. Look for dgamma and dbeta in the sums of dvar and dmean.
        raise NotImplementedError("your turn: set self.dgamma and self.dbeta, and return dx")

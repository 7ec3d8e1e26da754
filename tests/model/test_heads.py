"""Which losses fit what the last layer gives."""

import numpy as np
import pytest

import tinynet as tn
from tinynet import layers
from tinynet.losses import BY_NAME
from tinynet.model.heads import check_head


def dropout():
    return tn.Dropout(0.5)


SOFTMAX, LOG_SOFTMAX = [tn.Softmax], [tn.LogSoftmax]
REAL = [
    [],
    *([kind] for kind in (tn.ReLU, tn.LeakyReLU, tn.Tanh, tn.BatchNorm, tn.Flatten)),
    [dropout],
    [tn.Softmax, dropout],
    [tn.Softmax, tn.Tanh],
    [lambda: tn.Reshape((1, 1, 3)), tn.GlobalAveragePool2D],
    [tn.Softmax, lambda: tn.Reshape((1, 1, 3)), tn.GlobalMaxPool2D],
    [lambda: tn.Residual(tn.Softmax())],
    [lambda: tn.Rescale(2.0)],
]
FIT = {
    tn.CrossEntropy: [SOFTMAX, [tn.Softmax, tn.Flatten]],
    tn.NegativeLogLikelihood: [LOG_SOFTMAX, [tn.LogSoftmax, tn.Flatten]],
    tn.SoftmaxCrossEntropy: [*REAL, LOG_SOFTMAX],
    tn.MeanSquaredError: [*REAL, SOFTMAX, [tn.Softmax, tn.Flatten], LOG_SOFTMAX, [tn.Sigmoid]],
}


def model(head):
    return tn.Sequential([tn.Dense(3), *(make() for make in head)], (2,), seed=0)


@pytest.mark.parametrize("kind", FIT)
def test_a_loss_takes_what_fits_and_nothing_else(kind):
    for head in (*REAL, SOFTMAX, [tn.Softmax, tn.Flatten], LOG_SOFTMAX, [tn.Sigmoid]):
        if head in FIT[kind] or (head == [tn.Softmax, tn.Flatten] and kind is tn.MeanSquaredError):
            check_head(model(head), kind())
        else:
            with pytest.raises(ValueError, match=f"loss: {kind.__name__} takes .*, but the last layer is"):
                check_head(model(head), kind())


@pytest.mark.parametrize(
    ("head", "loss", "message"),
    [
        (
            [tn.Sigmoid],
            tn.CrossEntropy(),
            r"Sigmoid, which gives independent probabilities; end the model with Softmax\(\) in place of Sigmoid\(\)",
        ),
        (
            [lambda: tn.Reshape((1, 1, 3)), tn.GlobalAveragePool2D],
            tn.CrossEntropy(),
            r"GlobalAveragePool2D, which gives real numbers; end the model with Softmax\(\), or use SoftmaxCrossEnt",
        ),
        ([tn.Softmax, dropout], tn.CrossEntropy(), "Dropout, which gives real numbers"),
        ([tn.Softmax, tn.Flatten], tn.SoftmaxCrossEntropy(), r"leave the Softmax\(\) out"),
    ],
)
def test_the_advice(head, loss, message):
    with pytest.raises(ValueError, match=message):
        model(head).fit(np.ones((4, 2)), np.zeros(4, int), optimizer=tn.SGD(), loss=loss, verbose=0)


def test_what_says_nothing_is_let_through():
    class Own(tn.Layer):
        def forward(self, x, training=False):
            return x

    class Half(tn.Dense):
        """A subclass may compute something else."""

    class OwnLoss(tn.NegativeLogLikelihood):
        pass

    check_head(model([Own]), tn.CrossEntropy())
    check_head(tn.Sequential([Half(3)], (2,)), tn.CrossEntropy())
    check_head(tn.Sequential([tn.Flatten()], (2,)), tn.NegativeLogLikelihood())
    check_head(model(SOFTMAX), OwnLoss())


def test_a_class_may_say_it():
    class Own(tn.Layer):
        gives = "probabilities"

    class OwnLoss(tn.Loss):
        takes = "log-probabilities"

    check_head(model([Own]), tn.CrossEntropy())
    with pytest.raises(ValueError, match="OwnLoss takes log-probabilities, but the last layer is Own, which"):
        check_head(model([Own]), OwnLoss())


def test_every_layer_of_the_library_says_what_it_gives():
    assert [name for name in layers.__all__ if "gives" not in vars(getattr(layers, name))] == []
    assert {kind for kind in BY_NAME.values() if "takes" not in vars(kind)} == {tn.MeanSquaredError}

"""What users have built on a model, its layers, losses and callbacks goes on working in a run."""

import math
import pickle

import numpy as np
import pytest

import tinynet as tn

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((70, 6)), RNG.integers(0, 3, 70)


def network(kind=tn.Sequential):
    return kind([tn.Dense(5), tn.ReLU(), tn.Dense(3), tn.Softmax()], (6,), seed=0)


def fit(model, **settings):
    given = {"optimizer": tn.SGD(0.1), "loss": tn.CrossEntropy(), "batch_size": 16, "verbose": 0} | settings
    return model.fit(X, Y, **given)


class FreezingBar(tn.ProgressBar):
    """Freezes the first layer after the second batch; as it is a progress bar it might pass for harmless."""

    def on_batch_end(self, run):
        super().on_batch_end(run)
        if run.batch == 1:
            run.model.layers[0].trainable = False
            self.kept = run.model.layers[0].W.copy()


def test_a_layer_frozen_in_mid_epoch_stands_still():
    model, bar = network(), FreezingBar()
    fit(model, callbacks=[bar])
    np.testing.assert_array_equal(model.layers[0].W, bar.kept)


def test_so_does_one_that_the_augmentation_freezes():
    model, kept = network(), []

    def freeze(x, generator):
        if model.step == 2 and not kept:
            model.layers[0].trainable = False
            kept.append(model.layers[0].W.copy())
        return x

    fit(model, augment=freeze)
    np.testing.assert_array_equal(model.layers[0].W, kept[0])


class Penalised(tn.Sequential):
    """A penalty on the weights, in a method that fit calls."""

    def loss_and_gradients(self, x, y, loss, total=None, first_row=0):
        value = super().loss_and_gradients(x, y, loss, total, first_row)
        self.grads[:] += 0.1 * self.params
        return value


def test_a_loss_and_gradients_of_the_users_own_is_used_by_fit():
    model, plain = network(Penalised), network()
    fit(model)
    steps = math.ceil(len(X) / 16)
    assert model.step == steps
    fit(plain, optimizer=tn.SGD(0.1, weight_decay=0.1, decoupled=False))
    weights = plain.layers[0].W  # the penalty of the optimizer leaves biases alone, which begin at 0
    assert np.abs(model.layers[0].W - weights).max() < 1e-2
    with pytest.raises(ValueError, match="trains on one thread; expected None or 1, got 2"):
        fit(network(Penalised), workers=2)


class Scaled(tn.Loss):
    """Keeps its argument under another name."""

    def __init__(self, scale=1.0):
        self._scale = scale
        self._inner = tn.SoftmaxCrossEntropy()

    def forward(self, outputs, targets, total=None):
        return self._scale * self._inner.forward(outputs, targets, total)

    def backward(self):
        return self._scale * self._inner.backward()


def test_a_loss_may_keep_its_arguments_under_any_name(tmp_path):
    model = tn.Sequential([tn.Dense(3)], (6,), seed=0)
    assert repr(Scaled(2.0)) == "Scaled()"
    fit(model, loss=Scaled(2.0), checkpoint=tmp_path / "c")
    fit(tn.Sequential([tn.Dense(3)], (6,), seed=0), loss=Scaled(2.0), epochs=2, resume=tmp_path / "c")


def test_what_forward_has_not_kept_is_missing_to_getattr():
    dense, loss = network().layers[0], tn.CrossEntropy()
    assert getattr(dense, "_x", None) is None
    assert not hasattr(loss, "_labels")
    with pytest.raises(RuntimeError, match=r"Dense\.backward needs what Dense\.forward"):
        dense.backward(np.zeros((1, 5), np.float32))


class Doubled(tn.Layer):
    """Its cache is None in the class, and asked for by `cached`."""

    cache_names = ("_x",)
    _x = None

    def forward(self, x, training=False):
        if training:
            self._x = x
        return 2 * x

    def backward(self, dy):
        self.cached(self._x)
        return 2 * dy


def test_a_layer_may_ask_for_its_cache():
    model = tn.Sequential([tn.Dense(3), Doubled(), tn.Softmax()], (6,), seed=0)
    fit(model)
    assert model.layers[1]._x is not None
    assert pickle.loads(pickle.dumps(model)).layers[1]._x is None
    model.forget()
    with pytest.raises(RuntimeError, match=r"Doubled\.backward needs what"):
        model.layers[1].backward(np.zeros((1, 3)))


class AtTheBeginning(tn.Callback):
    def __init__(self, stop):
        self.stop, self.seen = stop, []

    def on_train_begin(self, run):
        self.seen.append(run.batch_loss)
        run.stop_training = self.stop


def test_there_is_no_batchs_loss_before_the_first():
    callback = AtTheBeginning(stop=False)
    fit(network(), callbacks=[callback])
    assert math.isnan(callback.seen[0])


def test_a_run_that_is_stopped_at_its_beginning_has_one_batch():
    history = fit(network(), callbacks=[AtTheBeginning(stop=True)], epochs=3)
    assert history.epochs == 1

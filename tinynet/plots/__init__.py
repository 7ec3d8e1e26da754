"""Pictures: samples, augmentation, training curves, confusion matrix, predictions, probabilities and the model."""

from tinynet.plots.figures import (
    plot_augmented,
    plot_confusion_matrix,
    plot_history,
    plot_model,
    plot_predictions,
    plot_probabilities,
    plot_samples,
)

__all__ = [
    "plot_augmented",
    "plot_confusion_matrix",
    "plot_history",
    "plot_model",
    "plot_predictions",
    "plot_probabilities",
    "plot_samples",
]

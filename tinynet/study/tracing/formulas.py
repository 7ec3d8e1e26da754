"""The formulas of layers, losses and optimizers as MathML, which browsers draw and screen readers read."""

import html
import re
from typing import NamedTuple


class Formulas(NamedTuple):
    """The formulas of a layer, a loss or an optimizer, in the notation of `mathml`."""

    forward: tuple[str, ...]
    backward: tuple[str, ...]


FORMULAS: dict[str, Formulas] = {
    "Dense": Formulas(("y = x W + b",), ("dW = x^T dy", "db = sum_n dy_n", "dx = dy W^T")),
    "ReLU": Formulas(("y = max(x, 0)",), ("dx = dy [y > 0]",)),
    "LeakyReLU": Formulas(
        ("y = x slope", "slope = 1 `where` x > 0 `, otherwise` negative_slope"), ("dx = dy slope",)
    ),
    "Sigmoid": Formulas(("y = frac{1}{1 + e^{-x}}",), ("dx = dy y (1 - y)",)),
    "Tanh": Formulas(("y = tanh(x)",), ("dx = dy (1 - y^2)",)),
    "Softmax": Formulas(("y_i = frac{e^{x_i}}{sum_j e^{x_j}}",), ("dx_i = y_i (dy_i - sum_j dy_j y_j)",)),
    "LogSoftmax": Formulas(("y_i = x_i - log sum_j e^{x_j}",), ("dx_i = dy_i - e^{y_i} sum_j dy_j",)),
    "BatchNorm": Formulas(
        ("hat{x} = frac{x - mean}{sqrt{var + epsilon}}", "y = gamma hat{x} + beta"),
        (
            "dgamma = sum_n dy_n hat{x}_n",
            "dbeta = sum_n dy_n",
            "dx = frac{gamma}{sqrt{var + epsilon}} (dy - frac{dbeta}{m} - hat{x} frac{dgamma}{m})",
        ),
    ),
    "BatchNorm, frozen": Formulas(
        ("hat{x} = frac{x - running_mean}{sqrt{running_var + epsilon}}", "y = gamma hat{x} + beta"),
        ("dx = frac{gamma}{sqrt{running_var + epsilon}} dy",),
    ),
    "Dropout": Formulas(
        ("y = x mask", "mask = frac{1}{1 - rate} `where kept,` 0 `otherwise`"), ("dx = dy mask",)
    ),
    "Rescale": Formulas(("y = scale x + offset",), ("dx = scale dy",)),
    "Flatten": Formulas(("y = `x, reshaped`",), ("dx = `dy, reshaped back`",)),
    "Reshape": Formulas(("y = `x, reshaped`",), ("dx = `dy, reshaped back`",)),
    "Conv2D": Formulas(
        ("y_{n i j o} = sum_{u v c} x_{n , i s + u , j s + v , c} W_{u v c o} + b_o",),
        (
            "dW_{u v c o} = sum_{n i j} x_{n , i s + u , j s + v , c} dy_{n i j o}",
            "db_o = sum_{n i j} dy_{n i j o}",
            "dx_{n p q c} = sum_{i s + u = p , j s + v = q , o} dy_{n i j o} W_{u v c o}",
        ),
    ),
    "DepthwiseConv2D": Formulas(
        ("y_{n i j , c m} = sum_{u v} x_{n , i s + u , j s + v , c} W_{u v c m} + b_{c m}",),
        (
            "dW_{u v c m} = sum_{n i j} x_{n , i s + u , j s + v , c} dy_{n i j , c m}",
            "db_{c m} = sum_{n i j} dy_{n i j , c m}",
            "dx_{n p q c} = sum_{i s + u = p , j s + v = q , m} dy_{n i j , c m} W_{u v c m}",
        ),
    ),
    "MaxPool2D": Formulas(
        ("y_{n i j c} = max_{u v} x_{n , i s + u , j s + v , c}",),
        ("dx_{n p q c} = sum_{`windows won by` p q} dy_{n i j c}",),
    ),
    "AveragePool2D": Formulas(
        ("y_{n i j c} = frac{1}{k} sum_{u v} x_{n , i s + u , j s + v , c}",),
        ("dx_{n p q c} = frac{1}{k} sum_{`windows containing` p q} dy_{n i j c}",),
    ),
    "GlobalMaxPool2D": Formulas(
        ("y_{n c} = max_{i j} x_{n i j c}",),
        ("dx_{n i j c} = dy_{n c} `at the largest pixel,` 0 `otherwise`",),
    ),
    "GlobalAveragePool2D": Formulas(
        ("y_{n c} = frac{1}{h w} sum_{i j} x_{n i j c}",), ("dx_{n i j c} = frac{dy_{n c}}{h w}",)
    ),
    "Residual": Formulas(("y = p(x) + f(x)",), ("dx = p'(dy) + f'(dy)",)),
    "SoftmaxCrossEntropy": Formulas(
        (
            "p_{n k} = frac{e^{z_{n k}}}{sum_j e^{z_{n j}}}",
            "L = - frac{1}{N} sum_n sum_k q_{n k} log p_{n k}",
        ),
        ("dz = frac{1}{N} (p - q)",),
    ),
    "CrossEntropy": Formulas(
        ("L = - frac{1}{N} sum_n sum_k q_{n k} log p_{n k}",), ("dp = - frac{1}{N} frac{q}{p}",)
    ),
    "NegativeLogLikelihood": Formulas(
        ("L = - frac{1}{N} sum_n log p_{n , label}",), ("d(log p) = - frac{1}{N} q",)
    ),
    "MeanSquaredError": Formulas(
        ("L = frac{1}{N K} sum_n sum_k (y_{n k} - t_{n k})^2",), ("dy = frac{2}{N K} (y - t)",)
    ),
    "SGD": Formulas(("W := W - learning_rate dW",), ()),
    "SGD with momentum": Formulas(
        ("velocity := momentum velocity - learning_rate dW", "W := W + velocity"), ()
    ),
    "SGD with Nesterov momentum": Formulas(
        (
            "velocity := momentum velocity - learning_rate dW",
            "W := W + momentum velocity - learning_rate dW",
        ),
        (),
    ),
    "RMSprop": Formulas(
        (
            "v := rho v + (1 - rho) dW^2",
            "W := W - learning_rate frac{dW}{sqrt{v + epsilon}}",
        ),
        (),
    ),
    "Adam": Formulas(
        (
            "m := beta_1 m + (1 - beta_1) dW",
            "v := beta_2 v + (1 - beta_2) dW^2",
            "W := W - learning_rate frac{sqrt{1 - beta_2^t}}{1 - beta_1^t} frac{m}{sqrt{v} + epsilon}",
        ),
        (),
    ),
}

_TOKEN = re.compile(r"\s*(`[^`]*`|[A-Za-z]+(?:_(?:rate|slope|decay|norm|mean|var)\b)?'?|\d+(?:\.\d+)?|:=|.)")
_GREEK = {
    "gamma": "γ",
    "beta": "β",
    "epsilon": "ε",
    "rho": "ρ",
    "dgamma": "dγ",
    "dbeta": "dβ",
}
_UPRIGHT = {"max", "exp", "log", "tanh", "mean", "var", "mask", "else", "slope", "norm"}
_OPERATORS = {"-": "−", "*": "·", ":=": "←"}


def mathml(formula: str) -> str:
    """A formula as a ``<math>`` element.

    Adjacent names form a product. ``_`` and ``^`` take a name or ``{...}``. ``sum_{...}``, ``frac{a}{b}``, ``sqrt{a}``
    and ``hat{a}`` are drawn. Greek letters are spelled out. Words between backquotes are text.
    """
    tokens = [token for token in _TOKEN.findall(formula) if token.strip()]
    drawn, end = _row(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"unbalanced braces in {formula!r}")
    return f'<math displaystyle="true">{drawn}</math>'


def _row(tokens: list[str], i: int) -> tuple[str, int]:
    """The elements up to a closing brace or the end, and that position."""
    parts: list[str] = []
    while i < len(tokens) and tokens[i] != "}":
        part, i = _scripted(tokens, i)
        if parts and not parts[-1].endswith("</mo>") and not part.startswith("<mo>"):
            parts.append('<mspace width="0.2em"></mspace>')  # dy W is a product, not a word
        parts.append(part)
    return "<mrow>" + "".join(parts) + "</mrow>", i


def _scripted(tokens: list[str], i: int) -> tuple[str, int]:
    """An element with the subscript and superscript that follow it."""
    is_sum = tokens[i] == "sum" or (tokens[i] == "max" and tokens[i + 1 : i + 2] == ["_"])
    base, i = _element(tokens, i)
    scripts = {}
    while i < len(tokens) and tokens[i] in "_^":
        sign = tokens[i]
        scripts[sign], i = _element(tokens, i + 1)
    if set(scripts) == {"_", "^"}:
        return f"<msubsup>{base}{scripts['_']}{scripts['^']}</msubsup>", i
    if "_" in scripts:
        tag = "munder" if is_sum else "msub"
        return f"<{tag}>{base}{scripts['_']}</{tag}>", i
    if "^" in scripts:
        return f"<msup>{base}{scripts['^']}</msup>", i
    return base, i


def _element(tokens: list[str], i: int) -> tuple[str, int]:
    token = tokens[i]
    if token == "{":
        drawn, end = _row(tokens, i + 1)
        return drawn, end + 1
    if token == "frac":
        above, i = _element(tokens, i + 1)
        below, i = _element(tokens, i)
        return f"<mfrac>{above}{below}</mfrac>", i
    if token == "sqrt":
        inside, i = _element(tokens, i + 1)
        return f"<msqrt>{inside}</msqrt>", i
    if token == "hat":
        inside, i = _element(tokens, i + 1)
        return f"<mover accent='true'>{inside}<mo>^</mo></mover>", i
    return _leaf(token), i + 1


def _leaf(token: str) -> str:
    if token == "sum":
        return "<mo>∑</mo>"
    if token.startswith("`"):
        return f"<mtext>&nbsp;{html.escape(token[1:-1])}&nbsp;</mtext>"
    if token[0].isdigit():
        return f"<mn>{token}</mn>"
    if token[0].isalpha():
        if token in _UPRIGHT:
            return f'<mi mathvariant="normal">{token}</mi>'
        name = _GREEK.get(token, token.replace("_", " ").replace("'", "′"))
        return f"<mi>{html.escape(name)}</mi>"
    return f"<mo>{html.escape(_OPERATORS.get(token, token))}</mo>"

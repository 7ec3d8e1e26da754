"""The geometry of convolution and pooling, and the two ways of computing a convolution."""

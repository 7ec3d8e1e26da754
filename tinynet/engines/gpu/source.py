"""The GPU's kernels in CUDA C++; `tinynet.engines.gpu.kernels` launches them, and CuPy compiles them on first use.

The comment above each kernel gives its formula, in the letters of its NumPy body, whose module is in
`tinynet.engines.operation.OPERATIONS`. Neighbouring threads take neighbouring numbers in memory, because a GPU fetches
32 at a time. Sums have a fixed order: the same numbers give the same bits in every run.

CuPy compiles all kernels, these and its own, with -ftz=true: in float32, magnitudes below 2^-126 count as 0.

``Real`` is the model's dtype. Kernels that only move numbers have ``Source`` and ``Target``, any two dtypes.
"""

BASICS = r"""
#ifdef WIDE
typedef long long Index;
#else
typedef unsigned int Index;  // for fewer than 2^31 elements: it divides several times as fast
#endif

#define EACH(i, size) \
    for (Index i = blockIdx.x * (Index)blockDim.x + threadIdx.x; i < (Index)(size); i += gridDim.x * (Index)blockDim.x)
"""

MOVES = r"""
// out[i] = data[order[start + i]]
extern "C" __global__ void take_rows(const Source* data, const long long* order, const long long* start_at,
                                     long long start, Target* out, long long row, long long size) {
    if (start_at) start = *start_at;
    EACH(i, size) {
        const long long from = start + i / (Index)row;
        out[i] = (Target)data[(order ? order[from] : from) * row + i % (Index)row];
    }
}

// y[i, r, c] = x[i, r, width - 1 - c] where mirrored[i], else x[i, r, c]; a pixel is `depth` numbers
extern "C" __global__ void flip_images(const Source* x, const bool* mirrored, Source* y, long long height,
                                       long long width, long long depth, long long size) {
    EACH(at, size) {
        const long long c = at / (Index)depth % (Index)width, i = at / (Index)(depth * width * height);
        y[at] = x[mirrored[i] ? at + (width - 1 - 2 * c) * depth : at];
    }
}

// y[i, r, c] = x[i, r + up[i] - pixels, c + left[i] - pixels] where that is in the image, else fill
extern "C" __global__ void shift_images(const Source* x, const long long* up, const long long* left, long long pixels,
                                        Source fill, Source* y, long long height, long long width, long long depth,
                                        long long size) {
    EACH(at, size) {
        const long long c = at / (Index)depth % (Index)width, r = at / (Index)(depth * width) % (Index)height;
        const long long i = at / (Index)(depth * width * height), down = up[i] - pixels, right = left[i] - pixels;
        const bool inside = r + down >= 0 && r + down < height && c + right >= 0 && c + right < width;
        y[at] = inside ? x[at + (down * width + right) * depth] : fill;
    }
}

// y[i, top[i] : top[i] + size[i], left[i] : left[i] + size[i]] = fill where chosen[i], else y = x
extern "C" __global__ void erase_squares(const Source* x, const bool* chosen, const long long* top,
                                         const long long* left, const long long* side, Source fill, Source* y,
                                         long long height, long long width, long long depth, long long size) {
    EACH(at, size) {
        const long long c = at / (Index)depth % (Index)width, r = at / (Index)(depth * width) % (Index)height;
        const long long i = at / (Index)(depth * width * height);
        const bool painted = chosen[i] && r >= top[i] && r < top[i] + side[i] && c >= left[i] && c < left[i] + side[i];
        y[at] = painted ? fill : x[at];
    }
}
"""

MATH = r"""
struct Layout { long long n[4], s[4]; };  // shape and strides; n[0] is 0 for an array that lies as the output does
struct Steps { long long row, feature; };  // strides of an array (m, f)
struct Axis { int pixels, size, stride, before, after, outputs; };
struct Windows { Axis down, across; };

// Where element i of the output's memory is in an array whose layout may differ.
__device__ long long at(const Layout& a, Index i) {
    if (!a.n[0]) return i;
    long long place = 0;
#pragma unroll
    for (int axis = 3; axis > 0; --axis) {
        place += i % (Index)a.n[axis] * a.s[axis];
        i /= (Index)a.n[axis];
    }
    return place + i * a.s[0];
}

__device__ long long at(const Steps& a, long long row, long long feature) {
    return row * a.row + feature * a.feature;
}

template <class T> __device__ T add(T a, T b) { return a + b; }
template <class T> __device__ T smaller(T a, T b) { return a < b ? a : b; }
template <class T> __device__ T larger(T a, T b) { return a > b || a != a ? a : b; }  // NaN if either is

// op over `count` threads (a power of two), each `apart` from the next, in a tree; all of them get the result.
template <class T, T op(T, T)> __device__ T tree(T value, unsigned rank, unsigned count, unsigned apart) {
    __shared__ T memory[1024];
    const unsigned t = threadIdx.y * blockDim.x + threadIdx.x;
    memory[t] = value;
    for (unsigned half = count / 2; half; half /= 2) {
        __syncthreads();
        if (rank < half) memory[t] = op(memory[t], memory[t + half * apart]);
    }
    __syncthreads();
    value = memory[t - rank * apart];
    __syncthreads();  // before the memory is written to again
    return value;
}
template <class T, T op(T, T)> __device__ T over_x(T value) { return tree<T, op>(value, threadIdx.x, blockDim.x, 1); }
template <class T, T op(T, T)> __device__ T over_y(T value) {
    return tree<T, op>(value, threadIdx.y, blockDim.y, blockDim.x);
}

// out = max(x + bias, 0); the feature is the last axis, whose stride is `apart`
extern "C" __global__ void rectify(const Real* x, Layout x_at, const Real* bias, long long features, long long apart,
                                   Real* out, long long size) {
    EACH(i, size) {
        Real z = x[at(x_at, i)];
        if (bias) z += bias[i / (Index)apart % (Index)features];
        out[i] = larger(z, (Real)0);
    }
}

// out = dy where y > 0, else 0
extern "C" __global__ void rectify_backward(const Real* dy, Layout dy_at, const Real* y, Layout y_at, Real* out,
                                            long long size) {
    EACH(i, size) out[i] = y[at(y_at, i)] > 0 ? dy[at(dy_at, i)] : (Real)0;
}

// Rows of k numbers: threads side by side take one row. All threads of a block take part in its trees, so those past
// the last row repeat it and write nothing.
#define EACH_ROW(row, mine, n) \
    for (long long first = blockIdx.x * (long long)blockDim.y, row, mine; \
         row = smaller<long long>(first + threadIdx.y, n - 1), mine = first + threadIdx.y < n, first < n; \
         first += gridDim.x * (long long)blockDim.y)

__device__ Real row_max(const Real* z, long long k) {
    Real top = z[0];
    for (long long j = threadIdx.x; j < k; j += blockDim.x) top = larger(z[j], top);
    return over_x<Real, larger<Real>>(top);
}

__device__ Real row_sum_exp(const Real* z, Real top, long long k) {
    Real sum = 0;
    for (long long j = threadIdx.x; j < k; j += blockDim.x) sum += exp(z[j] - top);
    return over_x<Real, add<Real>>(sum);
}

// y_j = exp(x_j - max x) / sum_i exp(x_i - max x)
extern "C" __global__ void softmax(const Real* x, Real* y, long long n, long long k) {
    EACH_ROW(row, mine, n) {
        const Real *z = x + row * k, top = row_max(z, k), sum = row_sum_exp(z, top, k);
        for (long long j = threadIdx.x; mine && j < k; j += blockDim.x) y[row * k + j] = exp(z[j] - top) / sum;
    }
}

// y_j = x_j - max x - log sum_i exp(x_i - max x)
extern "C" __global__ void log_softmax(const Real* x, Real* y, long long n, long long k) {
    EACH_ROW(row, mine, n) {
        const Real *z = x + row * k, top = row_max(z, k), log_sum = log(row_sum_exp(z, top, k));
        for (long long j = threadIdx.x; mine && j < k; j += blockDim.x) y[row * k + j] = z[j] - top - log_sum;
    }
}

// losses = logsumexp(z) - sum_k q_k z_k for q = (1 - s) onehot + s / k, all with z - max z; probabilities = softmax(z)
extern "C" __global__ void softmax_cross_entropy(const Real* logits, const long long* labels, Real s, Real* losses,
                                                 Real* probabilities, long long n, long long k) {
    EACH_ROW(row, mine, n) {
        const Real *z = logits + row * k, top = row_max(z, k), sum = row_sum_exp(z, top, k);
        Real all = 0, target = z[labels[row]] - top;
        for (long long j = threadIdx.x; j < k; j += blockDim.x) {
            all += z[j] - top;
            if (mine) probabilities[row * k + j] = exp(z[j] - top) / sum;
        }
        if (s != 0) target = (1 - s) * target + s * (over_x<Real, add<Real>>(all) / k);
        if (mine && threadIdx.x == 0) losses[row] = log(sum) - target;
    }
}

// out = scores / total - q / total, where q / total is `share` everywhere, and `hit` more at the label
extern "C" __global__ void subtract_targets(const Real* scores, const long long* labels, Real total, Real hit,
                                            Real share, Real* out, long long k, long long size) {
    EACH(i, size) {
        const Real score = scores[i] / total;
        out[i] = (i % (Index)k == labels[i / (Index)k] ? score - hit : score) - share;
    }
}

// picked[i] = scores[i, labels[i]]
extern "C" __global__ void pick(const Real* scores, Steps scores_at, const long long* labels, Real* picked,
                                long long n) {
    EACH(i, n) picked[i] = scores[at(scores_at, i, labels[i])];
}

// meter += (n value, rows whose first argmax is the label, n, 0); meter[3] = value. One block.
extern "C" __global__ void __launch_bounds__(1024) record(double* meter, const Real* value_at, Real value,
                                                          const Real* outputs, const long long* labels, long long n,
                                                          long long k) {
    if (value_at) value = *value_at;
    double hits = 0;
    if (labels) EACH_ROW(row, mine, n) {
        const Real *z = outputs + row * k, top = row_max(z, k);
        long long place = k;
        for (long long j = threadIdx.x; j < k; j += blockDim.x)
            if (z[j] == top || (z[j] != z[j] && top != top)) place = smaller(place, j);
        place = over_x<long long, smaller<long long>>(place);
        if (mine && place == labels[row]) ++hits;
    }
    hits = over_y<double, add<double>>(hits);
    if (threadIdx.x || threadIdx.y) return;
    meter[0] += (double)value * n;
    meter[1] += hits;
    meter[2] += n;
    meter[3] = value;
}

// sums = sum over rows, others = sum of rows other, or of other alone; threads along x take features, along y rows;
// each blockIdx.y takes a part of `chunk` rows
extern "C" __global__ void __launch_bounds__(1024) feature_sums(
        const Real* rows, Steps rows_at, const Real* other, Steps other_at, bool multiply, long long m, long long f,
        long long chunk, Real* sums, Real* others) {
    const long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x, start = blockIdx.y * chunk;
    const long long stop = j < f ? smaller(start + chunk, m) : start;
    Real sum = 0, sum_other = 0;
#pragma unroll 4
    for (long long i = start + threadIdx.y; i < stop; i += blockDim.y) {
        const Real value = rows[at(rows_at, i, j)];
        sum += value;
        if (other) sum_other += other[at(other_at, i, j)] * (multiply ? value : (Real)1);
    }
    sum = over_y<Real, add<Real>>(sum);
    if (other) sum_other = over_y<Real, add<Real>>(sum_other);
    if (j >= f || threadIdx.y) return;
    sums[blockIdx.y * f + j] = sum;
    if (other) others[blockIdx.y * f + j] = sum_other;
}

// mean = sum over rows / m, var = sum over (rows - mean)^2 / m, for each part of `chunk` rows
extern "C" __global__ void __launch_bounds__(1024) moments(const Real* rows, Steps rows_at, long long m, long long f,
                                                           long long chunk, Real* means, Real* vars) {
    const long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x, start = blockIdx.y * chunk;
    const long long end = smaller(start + chunk, m), stop = j < f ? end : start;
    Real sum = 0, squares = 0;
#pragma unroll 4
    for (long long i = start + threadIdx.y; i < stop; i += blockDim.y) sum += rows[at(rows_at, i, j)];
    const Real mean = over_y<Real, add<Real>>(sum) / (end - start);
#pragma unroll 4
    for (long long i = start + threadIdx.y; i < stop; i += blockDim.y) {
        const Real difference = rows[at(rows_at, i, j)] - mean;
        squares += difference * difference;
    }
    squares = over_y<Real, add<Real>>(squares);
    if (j >= f || threadIdx.y) return;
    means[blockIdx.y * f + j] = mean;
    vars[blockIdx.y * f + j] = squares / (end - start);
}

// mean = sum of c mean_p / m, var = sum of c (var_p + (mean_p - mean)^2) / m over parts p of c = chunk rows (Chan 1983)
extern "C" __global__ void __launch_bounds__(1024) combine_moments(
        const Real* means, const Real* vars, long long parts, long long m, long long f, long long chunk, Real* mean,
        Real* var) {
    const long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x, stop = j < f ? parts : 0;
    Real sum = 0, squares = 0;
    for (long long p = threadIdx.y; p < stop; p += blockDim.y) sum += smaller(chunk, m - p * chunk) * means[p * f + j];
    const Real middle = over_y<Real, add<Real>>(sum) / m;
    for (long long p = threadIdx.y; p < stop; p += blockDim.y) {
        const Real difference = means[p * f + j] - middle;
        squares += smaller(chunk, m - p * chunk) * (vars[p * f + j] + difference * difference);
    }
    squares = over_y<Real, add<Real>>(squares);
    if (j >= f || threadIdx.y) return;
    mean[j] = middle;
    var[j] = squares / m;
}

// Row and feature of element i of (m, f), counted along the dense axis.
#define ROW_AND_FEATURE(i) \
    const long long row = features_inner ? i / (Index)f : i % (Index)m; \
    const long long j = features_inner ? i % (Index)f : i / (Index)m;

// inv_std = 1 / sqrt(var + epsilon)     x_hat = (rows - mean) inv_std     y = gamma x_hat + beta
extern "C" __global__ void standardize(const Real* rows, Steps rows_at, const Real* mean, const Real* var, Real epsilon,
                                       const Real* gamma, const Real* beta, Real* hat, Steps hat_at, Real* y,
                                       Steps y_at, Real* inv_std, bool features_inner, long long m, long long f) {
    EACH(i, m * f) {
        ROW_AND_FEATURE(i)
        const Real scale = 1 / sqrt(var[j] + epsilon);
        const Real x_hat = (rows[at(rows_at, row, j)] - mean[j]) * scale;
        const Real scaled = gamma[j] * x_hat + beta[j];  // everything is read before the first write
        hat[at(hat_at, row, j)] = x_hat;
        y[at(y_at, row, j)] = scaled;
        if (row == 0) inv_std[j] = scale;
    }
}

// dx = gamma inv_std (dy - (dbeta + x_hat dgamma) / total)
extern "C" __global__ void batchnorm_dx(const Real* dy, Steps dy_at, const Real* hat, Steps hat_at, const Real* dgamma,
                                        const Real* dbeta, Real total, const Real* gamma, const Real* inv_std, Real* dx,
                                        Steps dx_at, bool features_inner, long long m, long long f) {
    EACH(i, m * f) {
        ROW_AND_FEATURE(i)
        const Real through = (dbeta[j] + hat[at(hat_at, row, j)] * dgamma[j]) / total;
        dx[at(dx_at, row, j)] = gamma[j] * inv_std[j] * (dy[at(dy_at, row, j)] - through);
    }
}

// running = momentum running + (1 - momentum) batch
extern "C" __global__ void move_averages(Real* running_mean, const Real* mean, Real* running_var, const Real* var,
                                         Real momentum, Real rest, long long f) {
    EACH(j, f) {
        running_mean[j] = momentum * running_mean[j] + rest * mean[j];
        running_var[j] = momentum * running_var[j] + rest * var[j];
    }
}

// columns[(i, j, c), (r, a, n)] = padded[c, (first + r) stride + i, a stride + j, n]; blockIdx.z is (i, j)
extern "C" __global__ void take_windows(const Real* __restrict__ padded, Layout shape, Windows windows,
                                        long long first, long long rows, Real* __restrict__ columns) {
    const long long channels = shape.n[0], height = shape.n[1], width = shape.n[2], n = shape.n[3];
    const int i = blockIdx.z / windows.across.size, j = blockIdx.z % windows.across.size;
    const long long across = windows.across.outputs, size = rows * across * n;
    EACH(place, size) {
        const int a = place / (Index)n % (Index)across, r = place / (Index)(n * across);
        const long long y = (first + r) * windows.down.stride + i, x = a * windows.across.stride + j;
        const Real* pixel = padded + (y * width + x) * n + place % (Index)n;
        Real* column = columns + blockIdx.z * channels * size + place;
#pragma unroll 4
        for (long long c = blockIdx.y; c < channels; c += gridDim.y) column[c * size] = pixel[c * height * width * n];
    }
}

// The first and last windows along an axis that hold a pixel, which is counted from the edge of the padding.
__device__ int first_window(const Axis& axis, int pixel) {
    return pixel < axis.size ? 0 : (pixel - axis.size) / axis.stride + 1;
}
__device__ int last_window(const Axis& axis, int pixel) {
    return smaller(pixel / axis.stride, axis.outputs - 1);
}

// padded[c, y, x, n] += sum over windows (r, a) that hold (y, x) of columns[(y - r stride, x - a stride, c), (r, a, n)]
extern "C" __global__ void add_windows(const Real* columns, Real* padded, Layout shape, Windows windows,
                                       long long first, long long rows) {
    const long long channels = shape.n[0], height = shape.n[1], width = shape.n[2], n = shape.n[3];
    const Axis down = windows.down, across = windows.across;
    EACH(place, channels * height * width * n) {
        const int x = place / (Index)n % (Index)width, y = place / (Index)(n * width) % (Index)height;
        const long long image = place % (Index)n, c = place / (Index)(n * width * height);
        const int top = larger<int>(first, first_window(down, y)), left = first_window(across, x);
        Real sum = padded[place];
        for (int r = smaller<int>(first + rows - 1, last_window(down, y)); r >= top; --r)
            for (int a = last_window(across, x); a >= left; --a) {
                const long long tap = (y - r * down.stride) * across.size + x - a * across.stride;
                sum += columns[(((tap * channels + c) * rows + r - first) * across.outputs + a) * n + image];
            }
        padded[place] = sum;
    }
}

// The first and last pixels of window i along an axis, not counting the padding.
__device__ int first_pixel(const Axis& axis, int i) {
    return larger(0, i * axis.stride - axis.before);
}
__device__ int last_pixel(const Axis& axis, int i) {
    return smaller(axis.pixels, i * axis.stride - axis.before + axis.size) - 1;
}

// y[c, r, a, n] = max of images[c, p, q, n] over the pixels (p, q) of window (r, a)
extern "C" __global__ void max_pool(const Real* images, Layout at, Windows windows, Real* y) {
    const long long n = at.n[3], across = windows.across.outputs, down = windows.down.outputs;
    EACH(place, at.n[0] * down * across * n) {
        const int a = place / (Index)n % (Index)across, r = place / (Index)(n * across) % (Index)down;
        const Real* image = images + place / (Index)(n * across * down) * at.s[0] + place % (Index)n * at.s[3];
        const int top = first_pixel(windows.down, r), bottom = last_pixel(windows.down, r);
        const int left = first_pixel(windows.across, a), right = last_pixel(windows.across, a);
        Real best = image[top * at.s[1] + left * at.s[2]];
        for (int p = top; p <= bottom; ++p)
            for (int q = left; q <= right; ++q)
                best = larger(image[p * at.s[1] + q * at.s[2]], best);
        y[place] = best;
    }
}

// Whether (p, q) is the first pixel of window (r, a), row by row, that equals `best`.
__device__ bool wins(const Real* image, const Layout& at, const Windows& windows, int r, int a, int p, int q,
                     Real best) {
    if (image[p * at.s[1] + q * at.s[2]] != best) return false;
    const int left = first_pixel(windows.across, a), right = last_pixel(windows.across, a);
    for (int i = first_pixel(windows.down, r); i <= p; ++i)
        for (int j = left; i < p ? j <= right : j < q; ++j)
            if (image[i * at.s[1] + j * at.s[2]] == best) return false;
    return true;
}

// dx[c, p, q, n] = sum of dy[c, r, a, n] over the windows (r, a) whose first pixel equal to y[c, r, a, n] is (p, q)
extern "C" __global__ void max_pool_backward(const Real* dy, Layout dy_at, const Real* x, Layout x_at, const Real* y,
                                             Windows windows, Real* dx) {
    const long long height = x_at.n[1], width = x_at.n[2], n = x_at.n[3];
    const Axis down = windows.down, across = windows.across;
    EACH(place, x_at.n[0] * height * width * n) {
        const int q = place / (Index)n % (Index)width, p = place / (Index)(n * width) % (Index)height;
        const long long i = place % (Index)n, c = place / (Index)(n * width * height);
        const int top = first_window(down, p + down.before), left = first_window(across, q + across.before);
        const Real* image = x + c * x_at.s[0] + i * x_at.s[3];
        Real sum = 0;
        for (int r = last_window(down, p + down.before); r >= top; --r)
            for (int a = last_window(across, q + across.before); a >= left; --a)
                if (wins(image, x_at, windows, r, a, p, q, y[((c * down.outputs + r) * across.outputs + a) * n + i]))
                    sum += dy[c * dy_at.s[0] + r * dy_at.s[1] + a * dy_at.s[2] + i * dy_at.s[3]];
        dx[place] = sum;
    }
}

// Block `number` of Philox4x64-10 (Salmon et al. 2011), as NumPy generates it: from counter (number, step, 0, 0) plus 1
__device__ void philox(unsigned long long number, unsigned long long step, unsigned long long key_0,
                       unsigned long long key_1, unsigned long long* words) {
    unsigned long long c_0 = number + 1, c_1 = step + (c_0 == 0), c_2 = 0, c_3 = 0;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long high_0 = __umul64hi(0xD2E7470EE14C6C93ULL, c_0), low_0 = 0xD2E7470EE14C6C93ULL * c_0;
        const unsigned long long high_1 = __umul64hi(0xCA5A826395121157ULL, c_2), low_1 = 0xCA5A826395121157ULL * c_2;
        c_0 = high_1 ^ c_1 ^ key_0, c_1 = low_1, c_2 = high_0 ^ c_3 ^ key_1, c_3 = low_0;
        key_0 += 0x9E3779B97F4A7C15ULL, key_1 += 0xBB67AE8584CAA73BULL;
    }
    words[0] = c_0, words[1] = c_1, words[2] = c_2, words[3] = c_3;
}

// mask = scale where a unit's 16 random bits >= threshold, else 0     y = x mask
// Each thread makes one block of bits, for 16 units; then all threads write, side by side, what the 256 have made.
extern "C" __global__ void drop(const Real* x, unsigned long long key_0, unsigned long long key_1,
                                unsigned long long first_row, const long long* step_at, long long step,
                                long long threshold, Real scale, Real* mask, Real* y, long long n, long long units,
                                long long by_row, Layout unit_at, bool rows_inner) {
    __shared__ unsigned long long words[256][4];
    const long long blocks = (units + 15) / 16, all = n * blocks;
    if (step_at) step = *step_at;
    for (long long first = blockIdx.x * 256LL; first < all; first += gridDim.x * 256LL) {
        const Index own = first + threadIdx.x;
        const Index place = rows_inner ? own % (Index)n * blocks + own / (Index)n : own;
        if (own < (Index)all) philox(first_row * blocks + place, step, key_0, key_1, words[threadIdx.x]);
        __syncthreads();
        for (unsigned i = threadIdx.x; i < 4096; i += 256) {
            const unsigned maker = rows_inner ? i % 256 : i / 16, lane = rows_inner ? i / 256 : i % 16;
            const Index made = first + maker;
            const Index row = rows_inner ? made % (Index)n : made / (Index)blocks;
            const Index unit = (rows_inner ? made / (Index)n : made % (Index)blocks) * 16 + lane;
            if (made >= (Index)all || unit >= (Index)units) continue;
            const long long there = row * by_row + at(unit_at, unit);
            const long long bits = words[maker][lane / 4] >> 16 * (lane % 4) & 0xFFFF;
            mask[there] = bits >= threshold ? scale : (Real)0;
            y[there] = x[there] * mask[there];
        }
        __syncthreads();
    }
}

// ints = (start, step)     floats = (step_size, kept). One thread.
extern "C" __global__ void set_numbers(Real* floats, long long* ints, long long start, long long step, Real step_size,
                                       Real kept) {
    ints[0] = start, ints[1] = step;
    floats[0] = step_size, floats[1] = kept;
}

// m = beta_1 m + g     v = beta_2 v + g^2     p -= step_size m / (sqrt(v) + epsilon)
extern "C" __global__ void adam_update(Real* __restrict__ p, const Real* __restrict__ g, Real* __restrict__ m,
                                       Real* __restrict__ v, const Real* step_size_at, Real step_size, Real beta_1,
                                       Real beta_2, Real epsilon, long long size) {
    if (step_size_at) step_size = *step_size_at;
    EACH(i, size) {
        m[i] = beta_1 * m[i] + g[i];
        v[i] = beta_2 * v[i] + g[i] * g[i];
        p[i] -= m[i] / (sqrt(v[i]) + epsilon) * step_size;
    }
}

// For each block: the sum of g^2, and of (2^-600 g)^2 in case the first overflows
extern "C" __global__ void sum_squares(const Real* g, long long size, double* sums) {
    double plain = 0, scaled = 0;
    EACH(i, size) {
        const double value = g[i], small = value * 0x1p-600;
        plain += value * value, scaled += small * small;
    }
    sums[2 * blockIdx.x] = over_x<double, add<double>>(plain);
    sums[2 * blockIdx.x + 1] = over_x<double, add<double>>(scaled);
}

// g *= clip_norm / norm where norm > clip_norm
extern "C" __global__ void clip(Real* g, long long size, const double* sums, long long count, double clip_norm) {
    double plain = 0, scaled = 0;
    for (long long i = threadIdx.x; i < count; i += blockDim.x) plain += sums[2 * i], scaled += sums[2 * i + 1];
    plain = over_x<double, add<double>>(plain), scaled = over_x<double, add<double>>(scaled);
    const double norm = plain > 0x1.fffffffffffffp1023 ? sqrt(scaled) * 0x1p600 : sqrt(plain);
    if (norm > clip_norm) EACH(i, size) g[i] *= (Real)(clip_norm / norm);
}
"""

// The functions of cuBLAS that tinynet calls, on host memory: products straight from their definition, the checks of
// arguments and the effect of cublasSetStream on the workspace as NVIDIA documents them. Compiled by
// tests/test_cublas.py, which also reads the log of the products and makes calls fail.

#include <cstdint>
#include <cstring>
#include <mutex>
#include <sched.h>
#include <string>
#include <vector>

namespace {

enum Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

struct Handle {
    const void *stream = nullptr;
    void *workspace = nullptr;
    size_t workspace_size = 0;
};

struct Product {  // as tests/test_cublas.py reads it
    int64_t stream, workspace, workspace_size, compute, batched, count, c;
};

std::mutex guard;
std::vector<Product> products;
int handles = 0;
std::string failing;
int failing_status = 0;

int failure(const char *function) { return failing == function ? failing_status : SUCCESS; }

template <class T> double to_double(T value, bool) { return value; }

template <> double to_double(float value, bool tf32) {
    if (!tf32) return value;
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x1000) & ~uint32_t{0x1fff};  // to 10 bits of mantissa
    std::memcpy(&value, &bits, sizeof bits);
    return value;
}

// C = alpha op(A) op(B) + beta C, all stored by columns; op(A) is m x k, op(B) k x n
template <class T>
void multiply(bool ta, bool tb, int m, int n, int k, T alpha, const T *a, int lda, const T *b, int ldb, T beta, T *c,
              int ldc, bool tf32) {
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t p = 0; p < k; ++p) {
                const T x = ta ? a[p + i * lda] : a[i + p * lda];
                const T y = tb ? b[j + p * ldb] : b[p + j * ldb];
                sum += to_double(x, tf32) * to_double(y, tf32);
            }
            T &target = c[i + j * ldc];
            target = static_cast<T>(beta == 0 ? alpha * sum : alpha * sum + beta * target);
        }
}

template <class T>
void multiply_all(bool ta, bool tb, int m, int n, int k, const void *alpha, const void *a, int lda, int64_t step_a,
                  const void *b, int ldb, int64_t step_b, const void *beta, void *c, int ldc, int64_t step_c,
                  int count, bool tf32) {
    for (int64_t i = 0; i < count; ++i)
        multiply(ta, tb, m, n, k, *static_cast<const T *>(alpha), static_cast<const T *>(a) + i * step_a, lda,
                 static_cast<const T *>(b) + i * step_b, ldb, *static_cast<const T *>(beta),
                 static_cast<T *>(c) + i * step_c, ldc, tf32);
}

int at_least_one(int size) { return size > 1 ? size : 1; }

int product(Handle *handle, bool batched, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a,
            int type_a, int lda, int64_t step_a, const void *b, int type_b, int ldb, int64_t step_b, const void *beta,
            void *c, int type_c, int ldc, int64_t step_c, int count, int compute, int algorithm) {
    if (!handle) return NOT_INITIALIZED;
    if (op_a < 0 || op_a > 2 || op_b < 0 || op_b > 2 || m < 0 || n < 0 || k < 0 || count < 0) return INVALID_VALUE;
    if (lda < at_least_one(op_a ? k : m) || ldb < at_least_one(op_b ? n : k) || ldc < at_least_one(m))
        return INVALID_VALUE;
    if (!alpha || !beta || algorithm != -1) return INVALID_VALUE;
    const bool in_single = type_a == 0 && type_b == 0 && type_c == 0 && (compute == 68 || compute == 77);
    const bool in_double = type_a == 1 && type_b == 1 && type_c == 1 && compute == 70;
    if (!in_single && !in_double) return NOT_SUPPORTED;
    if (handle->workspace)  // cuBLAS may write to it
        std::memset(handle->workspace, 0xff, handle->workspace_size < 4096 ? handle->workspace_size : 4096);
    (in_single ? multiply_all<float> : multiply_all<double>)(op_a, op_b, m, n, k, alpha, a, lda, step_a, b, ldb,
                                                             step_b, beta, c, ldc, step_c, count, compute == 77);
    std::lock_guard<std::mutex> lock(guard);
    products.push_back({reinterpret_cast<int64_t>(handle->stream), reinterpret_cast<int64_t>(handle->workspace),
                        static_cast<int64_t>(handle->workspace_size), compute, batched, count,
                        reinterpret_cast<int64_t>(c)});
    return SUCCESS;
}

}  // namespace

extern "C" {

int cublasCreate_v2(Handle **handle) {
    if (int status = failure("cublasCreate_v2")) return status;
    *handle = new Handle;
    ++handles;
    return SUCCESS;
}

int cublasDestroy_v2(Handle *handle) {
    delete handle;
    --handles;
    return SUCCESS;
}

int cublasSetStream_v2(Handle *handle, const void *stream) {
    if (int status = failure("cublasSetStream_v2")) return status;
    handle->stream = stream;
    handle->workspace = nullptr;  // "unconditionally resets the workspace back to the default workspace pool"
    handle->workspace_size = 0;
    sched_yield();  // exposes a thread that does not wait its turn
    return SUCCESS;
}

int cublasSetWorkspace_v2(Handle *handle, void *workspace, size_t size) {
    if (int status = failure("cublasSetWorkspace_v2")) return status;
    if (reinterpret_cast<uintptr_t>(workspace) % 256) return INVALID_VALUE;
    handle->workspace = workspace;
    handle->workspace_size = size;
    sched_yield();
    return SUCCESS;
}

int cublasGemmEx(Handle *handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, int type_a,
                 int lda, const void *b, int type_b, int ldb, const void *beta, void *c, int type_c, int ldc,
                 int compute, int algorithm) {
    if (int status = failure("cublasGemmEx")) return status;
    return product(handle, false, op_a, op_b, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0, beta, c, type_c,
                   ldc, 0, 1, compute, algorithm);
}

int cublasGemmStridedBatchedEx(Handle *handle, int op_a, int op_b, int m, int n, int k, const void *alpha,
                               const void *a, int type_a, int lda, long long step_a, const void *b, int type_b,
                               int ldb, long long step_b, const void *beta, void *c, int type_c, int ldc,
                               long long step_c, int count, int compute, int algorithm) {
    if (int status = failure("cublasGemmStridedBatchedEx")) return status;
    return product(handle, true, op_a, op_b, m, n, k, alpha, a, type_a, lda, step_a, b, type_b, ldb, step_b, beta, c,
                   type_c, ldc, step_c, count, compute, algorithm);
}

const char *cublasGetStatusName(int status) {
    switch (status) {
    case 1: return "CUBLAS_STATUS_NOT_INITIALIZED";
    case 3: return "CUBLAS_STATUS_ALLOC_FAILED";
    case 7: return "CUBLAS_STATUS_INVALID_VALUE";
    case 13: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case 15: return "CUBLAS_STATUS_NOT_SUPPORTED";
    default: return "unrecognized error code";
    }
}

int reference_products() { return static_cast<int>(products.size()); }
const Product *reference_product(int index) { return &products[static_cast<size_t>(index)]; }
int reference_handles() { return handles; }
void reference_fail(const char *function, int status) {
    failing = function;
    failing_status = status;
}
}

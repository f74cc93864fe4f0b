// Central windows of cross-correlations. The product of two spectra is transformed back only in a small window, along
// one axis after the other: by products with two small matrices instead of a full inverse FFT.
//
//     half[q][w][c] = sum_r exp(2 pi i y_w ky_r) P_q[r][c]          P_q = product of pair q, rows r, columns c
//     out[q][w][v]  = sum_c Re(exp(2 pi i x_v kx_c) factor_c half[q][w][c])
//
// Positions y_w, x_v are -half_width .. half_width steps. The sums for +o and -o share their cosine and sine parts.
// q counts the pairs of the whole batch: q = b * n_pairs + p.
#include "complex.cuh"

// members[k][r][c] = spectra[k][rows[r]][cols[c]] * root_weight[r][c] * phase_y[k][r] * phase_x[k][c], k = (b, t).
// Launch: (batch * frames, n_rows) blocks of THREADS threads, one row each. Bytes per element: 16.
extern "C" __global__ void __launch_bounds__(THREADS)
    weight_members(const float2 *__restrict__ spectra, int sy, int sxh, const int *__restrict__ rows,
                   const int *__restrict__ cols, int n_cols, const float *__restrict__ root_weight,
                   const float2 *__restrict__ phase_y, const float2 *__restrict__ phase_x,
                   float2 *__restrict__ members) {
    const size_t k = blockIdx.x;
    const int r = blockIdx.y, n_rows = gridDim.y;
    const float2 along_y = phase_y[k * n_rows + r];
    const float2 *from = spectra + (k * sy + rows[r]) * sxh;
    float2 *to = members + (k * n_rows + r) * n_cols;
    for (int c = threadIdx.x; c < n_cols; c += THREADS) {
        const float w = root_weight[(size_t)r * n_cols + c];
        const float2 v = times(times(from[cols[c]], along_y), phase_x[k * n_cols + c]);
        to[c] = make_float2(w * v.x, w * v.y);
    }
}

// First and last frame of the group around frame t.
__device__ __forceinline__ int group_first(int t, int group) { return max(t - (group - 1) / 2, 0); }
__device__ __forceinline__ int group_last(int t, int group, int frames) { return min(t + group / 2, frames - 1); }

// groups[b][t][i] = sum of members[b][s][i] over the group of t.
// Launch: (ceil(size / THREADS), frames, batch) blocks of THREADS threads, one element i each.
// Bytes: 8 * (group + 1).
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_groups(const float2 *__restrict__ members, long long size, int group, float2 *__restrict__ groups) {
    const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= size) return;
    const int t = blockIdx.y, frames = gridDim.y;
    const size_t first = (size_t)blockIdx.z * frames;
    float2 sum = make_float2(0.f, 0.f);
    for (int s = group_first(t, group); s <= group_last(t, group, frames); s++) {
        const float2 v = members[(first + s) * size + i];
        sum.x += v.x;
        sum.y += v.y;
    }
    groups[(first + t) * size + i] = sum;
}

#define ROWS 16  // of a spectrum, handled between two barriers

// Element of the product of pair (i, j), without the contribution of frames that belong to both groups.
__device__ __forceinline__ float2 product(const float2 *groups, const float2 *members, size_t size, size_t at, int i,
                                          int j, int shared_first, int shared_last, float scale) {
    const float2 a = groups[i * size + at], b = groups[j * size + at];
    float2 p = make_float2(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
    for (int s = shared_first; s <= shared_last; s++) {
        const float2 m = members[s * size + at];
        p.x -= m.x * m.x + m.y * m.y;
    }
    return make_float2(scale * p.x, scale * p.y);
}

// half[q - q0][half_width + o][c] and [half_width - o][c] for o = 0 .. half_width, K offsets a thread.
// waves[r][o] = (cos, sin) of 2 pi y_o ky_r. Products are formed in shared memory and never written.
// Launch: (pairs, ceil(n_cols / (LANES M)), ceil((half_width + 1) / (OFFSET_THREADS K))) blocks of
// (LANES, OFFSET_THREADS) threads. Thread (x, y) owns columns x, x + LANES, .. of the block's LANES M and offsets y,
// y + OFFSET_THREADS, .. of the block's OFFSET_THREADS K. M = 2 needs fewer reads of shared memory for each product;
// M = 1 is for spectra of up to LANES columns, as the refinement has, of which half the threads would have none.
// Bytes: reads 16 * n_rows * n_cols for each pair, mostly from L2; writes 8 * (2 half_width + 1) * n_cols.
template <int K, int M>
__device__ __forceinline__ void transform_rows(const float2 *groups, const float2 *members, const int2 *pairs,
                                               int n_pairs, long long q0, int frames, int group, int n_rows, int n_cols,
                                               const float2 *waves, int half_width, float2 *half,
                                               float2 (*p_tile)[LANES * M], float2 (*wave_tile)[OFFSET_THREADS * K]) {
    const long long q = q0 + blockIdx.x;
    const int2 pair = pairs[q % n_pairs];
    const size_t size = (size_t)n_rows * n_cols;
    groups += q / n_pairs * frames * size;
    members += q / n_pairs * frames * size;
    const int i0 = group_first(pair.x, group), i1 = group_last(pair.x, group, frames);
    const int j0 = group_first(pair.y, group), j1 = group_last(pair.y, group, frames);
    const float scale = 1.f / ((i1 - i0 + 1) * (j1 - j0 + 1));
    constexpr int COLUMNS = LANES * M;
    const int c0 = blockIdx.y * COLUMNS, o0 = blockIdx.z * OFFSET_THREADS * K;
    const int thread = threadIdx.y * LANES + threadIdx.x;

    float real_cos[K][M] = {}, real_sin[K][M] = {};
    float imag_cos[K][M] = {}, imag_sin[K][M] = {};
    for (int r0 = 0; r0 < n_rows; r0 += ROWS) {
        __syncthreads();
        for (int e = thread; e < ROWS * COLUMNS; e += LANES * OFFSET_THREADS) {
            const int r = r0 + e / COLUMNS, c = c0 + e % COLUMNS;
            p_tile[e / COLUMNS][e % COLUMNS] =
                r < n_rows && c < n_cols ? product(groups, members, size, (size_t)r * n_cols + c, pair.x, pair.y,
                                                   max(i0, j0), min(i1, j1), scale)
                                         : make_float2(0.f, 0.f);
        }
        for (int e = thread; e < ROWS * OFFSET_THREADS * K; e += LANES * OFFSET_THREADS) {
            const int r = r0 + e / (OFFSET_THREADS * K), o = o0 + e % (OFFSET_THREADS * K);
            wave_tile[e / (OFFSET_THREADS * K)][e % (OFFSET_THREADS * K)] =
                r < n_rows && o <= half_width ? waves[(size_t)r * (half_width + 1) + o] : make_float2(0.f, 0.f);
        }
        __syncthreads();
#pragma unroll 4
        for (int r = 0; r < ROWS; r++) {
            float2 p[M];
#pragma unroll
            for (int m = 0; m < M; m++) p[m] = p_tile[r][threadIdx.x + LANES * m];
#pragma unroll
            for (int k = 0; k < K; k++) {
                const float2 wave = wave_tile[r][threadIdx.y + OFFSET_THREADS * k];
#pragma unroll
                for (int m = 0; m < M; m++) {
                    real_cos[k][m] += p[m].x * wave.x;
                    real_sin[k][m] += p[m].x * wave.y;
                    imag_cos[k][m] += p[m].y * wave.x;
                    imag_sin[k][m] += p[m].y * wave.y;
                }
            }
        }
    }
    half += (size_t)blockIdx.x * (2 * half_width + 1) * n_cols;
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int m = 0; m < M; m++) {
            const int o = o0 + threadIdx.y + OFFSET_THREADS * k, c = c0 + threadIdx.x + LANES * m;
            if (o > half_width || c >= n_cols) continue;
            half[(size_t)(half_width - o) * n_cols + c] =
                make_float2(real_cos[k][m] + imag_sin[k][m], imag_cos[k][m] - real_sin[k][m]);
            half[(size_t)(half_width + o) * n_cols + c] =
                make_float2(real_cos[k][m] - imag_sin[k][m], imag_cos[k][m] + real_sin[k][m]);
        }
}

#define TRANSFORM_ROWS(K, M)                                                                                          \
    extern "C" __global__ void __launch_bounds__(LANES * OFFSET_THREADS) transform_rows_##K##_##M(                    \
        const float2 *__restrict__ groups, const float2 *__restrict__ members, const int2 *__restrict__ pairs,        \
        int n_pairs, long long q0, int frames, int group, int n_rows, int n_cols, const float2 *__restrict__ waves,   \
        int half_width, float2 *__restrict__ half) {                                                                  \
        __shared__ float2 p_tile[ROWS][LANES * M];                                                                    \
        __shared__ float2 wave_tile[ROWS][OFFSET_THREADS * K];                                                        \
        transform_rows<K, M>(groups, members, pairs, n_pairs, q0, frames, group, n_rows, n_cols, waves, half_width,   \
                             half, p_tile, wave_tile);                                                                \
    }

TRANSFORM_ROWS(1, 1)
TRANSFORM_ROWS(2, 1)
TRANSFORM_ROWS(4, 1)
TRANSFORM_ROWS(1, 2)
TRANSFORM_ROWS(2, 2)
TRANSFORM_ROWS(4, 2)

// out[q0 + q][w][half_width + o] and [half_width - o] from half[q][w]; waves[c][o] = factor_c * (cos, sin).
// Launch: (pairs, ceil(width / WINDOW_ROWS), ceil((half_width + 1) / LANES)) blocks of (LANES, WINDOW_ROW_THREADS)
// threads. Thread (x, y) owns offset x of the block's LANES and rows y, y + WINDOW_ROW_THREADS, .. of its
// WINDOW_ROWS.
// Bytes: 8 * n_cols read and 4 * width written for each w.
extern "C" __global__ void __launch_bounds__(LANES * WINDOW_ROW_THREADS)
    transform_columns(const float2 *__restrict__ half, int n_cols, const float2 *__restrict__ waves, int half_width,
                      long long q0, float *__restrict__ out) {
    __shared__ float2 half_tile[WINDOW_ROWS][LANES];
    __shared__ float2 wave_tile[LANES][LANES];
    constexpr int rows = WINDOW_ROWS / WINDOW_ROW_THREADS;  // of a thread
    const int width = 2 * half_width + 1, w0 = blockIdx.y * WINDOW_ROWS, o = blockIdx.z * LANES + threadIdx.x;
    half += (size_t)blockIdx.x * width * n_cols;
    out += (size_t)(q0 + blockIdx.x) * width * width;
    float even[rows] = {}, odd[rows] = {};
    for (int c0 = 0; c0 < n_cols; c0 += LANES) {
        __syncthreads();
        const int c = c0 + threadIdx.x;
        for (int k = threadIdx.y; k < WINDOW_ROWS; k += WINDOW_ROW_THREADS)
            half_tile[k][threadIdx.x] =
                w0 + k < width && c < n_cols ? half[(size_t)(w0 + k) * n_cols + c] : make_float2(0.f, 0.f);
        for (int k = threadIdx.y; k < LANES; k += WINDOW_ROW_THREADS)
            wave_tile[k][threadIdx.x] = c0 + k < n_cols && o <= half_width
                                            ? waves[(size_t)(c0 + k) * (half_width + 1) + o]
                                            : make_float2(0.f, 0.f);
        __syncthreads();
        for (int k = 0; k < LANES; k++) {
            const float2 wave = wave_tile[k][threadIdx.x];
#pragma unroll
            for (int m = 0; m < rows; m++) {
                const float2 v = half_tile[threadIdx.y + WINDOW_ROW_THREADS * m][k];
                even[m] += v.x * wave.x;
                odd[m] += v.y * wave.y;
            }
        }
    }
    if (o > half_width) return;
#pragma unroll
    for (int m = 0; m < rows; m++) {
        const int w = w0 + threadIdx.y + WINDOW_ROW_THREADS * m;
        if (w >= width) continue;
        out[(size_t)w * width + half_width - o] = even[m] + odd[m];
        out[(size_t)w * width + half_width + o] = even[m] - odd[m];
    }
}

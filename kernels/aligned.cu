// Power of the sum of shifted images and its derivatives with respect to the shifts (backend.AlignedPower).
//
//     A_t(k) = F_t(k) exp(-2 pi i k s_t)        S = sum_t A_t
//     power = 1/2 sum_k weight (|S|^2 - sum_t |A_t|^2)        slope_t = 2 pi sum_k weight k Im(conj(S) A_t)
//     product_tu = sum_k weight k k^T Re(conj(A_t) A_u)
//
// Image t of set b is spectra[b][t] (sy, sxh); used are the rows rows[..] and the columns first .. first + n_cols - 1.
// The host sums in double precision what the blocks of SLOPE_ROWS rows contribute.
#include "complex.cuh"

// Coefficient of a spectrum after the shift (y, x).
__device__ __forceinline__ float2 aligned(float2 v, float ky, float kx, float2 shift) {
    const float turns = ky * shift.x + kx * shift.y;
    float s, c;
    sincospif(-2.f * (turns - rintf(turns)), &s, &c);
    return times(v, make_float2(c, s));
}

// sums[b][r][c] = S.
// Launch: (ceil(n_cols / THREADS), n_rows, batch) blocks of THREADS threads, one coefficient each.
// Bytes per coefficient: 8 for each image, 8 written.
extern "C" __global__ void __launch_bounds__(THREADS)
    sum_aligned(const float2 *__restrict__ spectra, int frames, int sy, int sxh, const int *__restrict__ rows,
                int first, int n_cols, const float *__restrict__ ky, const float *__restrict__ kx,
                const float2 *__restrict__ shifts, float2 *__restrict__ sums) {
    const int c = blockIdx.x * THREADS + threadIdx.x, r = blockIdx.y;
    if (c >= n_cols) return;
    const size_t b = blockIdx.z;
    float2 sum = make_float2(0.f, 0.f);
    for (int t = 0; t < frames; t++) {
        const size_t k = b * frames + t;
        const float2 v = aligned(spectra[(k * sy + rows[r]) * sxh + first + c], ky[r], kx[c], shifts[k]);
        sum.x += v.x;
        sum.y += v.y;
    }
    sums[(b * gridDim.y + r) * n_cols + c] = sum;
}

// terms[b][block of rows][t] = (slope along y, along x, sum of weight |A_t|^2, 0) without the factor 2 pi; for
// t = frames it is (0, 0, sum of weight |S|^2, 0).
// Launch: (frames + 1, blocks of SLOPE_ROWS rows, batch) blocks of THREADS threads; thread 0 writes.
// Bytes per coefficient: 16 for each image.
extern "C" __global__ void __launch_bounds__(THREADS)
    slopes(const float2 *__restrict__ spectra, int frames, int sy, int sxh, const int *__restrict__ rows, int n_rows,
           int first, int n_cols, const float *__restrict__ weight, const float *__restrict__ ky,
           const float *__restrict__ kx, const float2 *__restrict__ shifts, const float2 *__restrict__ sums,
           float4 *__restrict__ terms) {
    __shared__ float part[THREADS][3];
    const int t = blockIdx.x, r0 = blockIdx.y * SLOPE_ROWS, r1 = min(r0 + SLOPE_ROWS, n_rows);
    const size_t b = blockIdx.z;
    float along_y = 0, along_x = 0, power = 0;
    for (int i = r0 * n_cols + threadIdx.x; i < r1 * n_cols; i += THREADS) {
        const int r = i / n_cols, c = i % n_cols;
        const float w = weight[i];
        const float2 sum = sums[b * n_rows * n_cols + i];
        if (t == frames) {
            power += w * (sum.x * sum.x + sum.y * sum.y);
            continue;
        }
        const size_t k = b * frames + t;
        const float2 v = aligned(spectra[(k * sy + rows[r]) * sxh + first + c], ky[r], kx[c], shifts[k]);
        const float turned = w * (sum.x * v.y - sum.y * v.x);
        along_y += turned * ky[r];
        along_x += turned * kx[c];
        power += w * (v.x * v.x + v.y * v.y);
    }
    part[threadIdx.x][0] = along_y;
    part[threadIdx.x][1] = along_x;
    part[threadIdx.x][2] = power;
    for (int d = THREADS / 2; d; d >>= 1) {
        __syncthreads();
        if (threadIdx.x < d)
            for (int m = 0; m < 3; m++) part[threadIdx.x][m] += part[threadIdx.x + d][m];
    }
    if (threadIdx.x) return;
    terms[(b * gridDim.y + blockIdx.y) * gridDim.x + t] = make_float4(part[0][0], part[0][1], part[0][2], 0.f);
}

// partial[b - b0][block of rows][t][u] = product_tu as (yy, yx, xx, 0).
// Launch: (ceil(frames / PRODUCT_FRAMES)^2, blocks of SLOPE_ROWS rows, batch - b0) blocks of
// (PRODUCT_FRAMES, PRODUCT_FRAMES) threads, one pair (u, t) each.
extern "C" __global__ void __launch_bounds__(PRODUCT_FRAMES * PRODUCT_FRAMES)
    products(const float2 *__restrict__ spectra, int b0, int frames, int sy, int sxh, const int *__restrict__ rows,
             int n_rows, int first, int n_cols, const float *__restrict__ weight, const float *__restrict__ ky,
             const float *__restrict__ kx, const float2 *__restrict__ shifts, float4 *__restrict__ partial) {
    __shared__ float2 of_t[PRODUCT_FRAMES][PRODUCT_FRAMES + 1], of_u[PRODUCT_FRAMES][PRODUCT_FRAMES + 1];
    __shared__ float factors[PRODUCT_FRAMES][3];
    const int tiles = (frames + PRODUCT_FRAMES - 1) / PRODUCT_FRAMES;
    const int t0 = blockIdx.x / tiles * PRODUCT_FRAMES, u0 = blockIdx.x % tiles * PRODUCT_FRAMES;
    const int r0 = blockIdx.y * SLOPE_ROWS, r1 = min(r0 + SLOPE_ROWS, n_rows);
    const size_t b = b0 + blockIdx.z;
    float yy = 0, yx = 0, xx = 0;
    for (int i0 = r0 * n_cols; i0 < r1 * n_cols; i0 += PRODUCT_FRAMES) {
        const int i = i0 + threadIdx.x, r = i / n_cols, c = i % n_cols;
        const bool inside = i < r1 * n_cols;
        __syncthreads();
        for (int side = 0; side < 2; side++) {
            const int frame = (side ? u0 : t0) + threadIdx.y;
            const size_t k = b * frames + frame;
            (side ? of_u : of_t)[threadIdx.y][threadIdx.x] =
                inside && frame < frames
                    ? aligned(spectra[(k * sy + rows[r]) * sxh + first + c], ky[r], kx[c], shifts[k])
                    : make_float2(0.f, 0.f);
        }
        if (threadIdx.y == 0) {
            const float w = inside ? weight[i] : 0.f, y = inside ? ky[r] : 0.f, x = inside ? kx[c] : 0.f;
            factors[threadIdx.x][0] = w * y * y;
            factors[threadIdx.x][1] = w * y * x;
            factors[threadIdx.x][2] = w * x * x;
        }
        __syncthreads();
        for (int m = 0; m < PRODUCT_FRAMES; m++) {
            const float2 a = of_t[threadIdx.y][m], v = of_u[threadIdx.x][m];
            const float real = a.x * v.x + a.y * v.y;
            yy += factors[m][0] * real;
            yx += factors[m][1] * real;
            xx += factors[m][2] * real;
        }
    }
    const int t = t0 + threadIdx.y, u = u0 + threadIdx.x;
    if (t < frames && u < frames)
        partial[(((size_t)blockIdx.z * gridDim.y + blockIdx.y) * frames + t) * frames + u] =
            make_float4(yy, yx, xx, 0.f);
}

// total[i] (+)= sum over b and blocks of rows of factors[b] * partial[b][block][i]; `add`: to what is there.
// Launch: one thread for each of `size` numbers, THREADS a block.
extern "C" __global__ void __launch_bounds__(THREADS)
    add_products(const float *__restrict__ partial, const float *__restrict__ factors, int batch, int row_blocks,
                 long long size, int add, float *__restrict__ total) {
    const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= size) return;
    float sum = add ? total[i] : 0.f;
    for (int b = 0; b < batch; b++)
        for (int k = 0; k < row_blocks; k++) sum += factors[b] * partial[((size_t)b * row_blocks + k) * size + i];
    total[i] = sum;
}

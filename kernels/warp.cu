// Weighted sums of frames that are resampled once through the motion field (quintic B-spline without its prefilter).
//
//     sums[s][y][x] += sum_k weight[s][k] * sum_{a,b} beta(..) frame_k(y - sy_k(y, x) + a, x - sx_k(y, x) + b)
//     (sy, sx)_k(y, x) = sum_{m,n} By[y][m] Bx[x][n] control[k][.][m][n]
//
// The basis is tabulated: for each row and each column its four non-zero values and the first control point.

// 120 times the quintic B-spline at 1 + f.
__device__ __forceinline__ float second(float f) { return 26 + f * (-50 + f * (20 + f * (20 + f * (5 * f - 20)))); }

// Quintic B-spline weights at -2 .. 3 for the fraction f.
__device__ __forceinline__ void quintic(float f, float *w) {
    const float g = 1 - f, f2 = f * f, g2 = g * g;
    w[0] = g2 * g2 * g * (1.f / 120);
    w[1] = second(f) * (1.f / 120);
    w[2] = (66 + f2 * (-60 + f2 * (30 - 10 * f))) * (1.f / 120);
    w[4] = second(g) * (1.f / 120);
    w[5] = f2 * f2 * f * (1.f / 120);
    w[3] = 1 - w[0] - w[1] - w[2] - w[4] - w[5];
}

// w[k] without indexing, which would put w into local memory.
__device__ __forceinline__ float pick(const float *w, int k) {
    const float low = k == 0 ? w[0] : k == 1 ? w[1] : w[2];
    return k < 3 ? low : k == 3 ? w[3] : k == 4 ? w[4] : w[5];
}

// B-spline sum of a frame at (row - 2 .. row + 3, column - 2 .. column + 3); `fill` outside the frame.
__device__ __forceinline__ float sample(const float *frame, int ny, int nx, int row, int column, const float *wy,
                                        const float *wx, float fill) {
    float sum = 0;
    if (row >= 2 && column >= 2 && row < ny - 3 && column < nx - 3) {
        const float *v = frame + (size_t)(row - 2) * nx + column - 2;
#pragma unroll
        for (int a = 0; a < 6; a++, v += nx)
            sum += wy[a] * (wx[0] * v[0] + wx[1] * v[1] + wx[2] * v[2] + wx[3] * v[3] + wx[4] * v[4] + wx[5] * v[5]);
        return sum;
    }
    // Pixels near the edge are few. The loop is not unrolled, because that would need registers of all threads.
#pragma unroll 1
    for (int k = 0; k < 36; k++) {
        const unsigned y = row - 2 + k / 6, x = column - 2 + k % 6;
        const float v = y < (unsigned)ny && x < (unsigned)nx ? frame[(size_t)y * nx + x] : fill;
        sum += pick(wy, k / 6) * pick(wx, k % 6) * v;
    }
    return sum;
}

// frames: (count, ny, nx) corrected. control: (count, 2, ky, kx) shifts (sy, sx), ky and kx at least 4.
// basis_y, first_y: (ny); basis_x, first_x: (nx). weights: (n_sums, count). fill: (count). sums: (n_sums, ny, nx), each
// `stride` pixels after the previous one.
// Launch: (ceil(nx / LANES), ceil(ny / WARP_ROWS)) blocks of (LANES, WARP_ROWS) threads, one pixel of all n_sums <=
// WARP_SUMS sums each; shared memory WARP_ROWS * kx * 8 bytes for the field's control points at the block's rows.
// Bytes per pixel: 4 for each frame (its 36 taps come from L1), 8 for each sum.
extern "C" __global__ void __launch_bounds__(LANES * WARP_ROWS)
    warp_sum(const float *__restrict__ frames, int count, int ny, int nx, const float *__restrict__ control, int ky,
             int kx, const float4 *__restrict__ basis_y, const int *__restrict__ first_y,
             const float4 *__restrict__ basis_x, const int *__restrict__ first_x, const float *__restrict__ weights,
             const float *__restrict__ fill, int n_sums, unsigned stride, float *__restrict__ sums) {
    extern __shared__ float2 along_row[];  // [WARP_ROWS][kx]
    const int x = blockIdx.x * LANES + threadIdx.x, y = blockIdx.y * WARP_ROWS + threadIdx.y;
    const bool mine = x < nx && y < ny;
    const float4 by = basis_y[min(y, ny - 1)], bx = basis_x[min(x, nx - 1)];
    const int m0 = first_y[min(y, ny - 1)], n0 = first_x[min(x, nx - 1)];
    // Frames are added one by one to the previous sums, so that the result does not depend on batches.
    float total[WARP_SUMS] = {};
#pragma unroll
    for (int s = 0; s < WARP_SUMS; s++)
        if (mine && s < n_sums) total[s] = sums[(size_t)s * stride + (size_t)y * nx + x];
    for (int k = 0; k < count; k++) {
        __syncthreads();
        const float *cy = control + (size_t)k * 2 * ky * kx + m0 * kx, *cx = cy + ky * kx;
        for (int n = threadIdx.x; n < kx; n += LANES)
            along_row[threadIdx.y * kx + n] = make_float2(
                by.x * cy[n] + by.y * cy[n + kx] + by.z * cy[n + 2 * kx] + by.w * cy[n + 3 * kx],
                by.x * cx[n] + by.y * cx[n + kx] + by.z * cx[n + 2 * kx] + by.w * cx[n + 3 * kx]);
        __syncthreads();
        if (!mine) continue;
        const float2 *d = along_row + threadIdx.y * kx + n0;
        const float py = -(bx.x * d[0].x + bx.y * d[1].x + bx.z * d[2].x + bx.w * d[3].x);
        const float px = -(bx.x * d[0].y + bx.y * d[1].y + bx.z * d[2].y + bx.w * d[3].y);
        const float fy = floorf(py), fx = floorf(px);
        float wy[6], wx[6];
        quintic(py - fy, wy);
        quintic(px - fx, wx);
        const float v = sample(frames + (size_t)k * ny * nx, ny, nx, y + (int)fy, x + (int)fx, wy, wx, fill[k]);
#pragma unroll
        for (int s = 0; s < WARP_SUMS; s++)
            if (s < n_sums) total[s] += weights[s * count + k] * v;
    }
    if (!mine) return;
#pragma unroll
    for (int s = 0; s < WARP_SUMS; s++)
        if (s < n_sums) sums[(size_t)s * stride + (size_t)y * nx + x] = total[s];
}

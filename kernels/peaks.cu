// Highest point of each correlation window within a radius, its sub-pixel position, and the window's noise.
#define NOT_FOUND 0x7fffffff

// Sum over the block's threads, the same in all of them. The order of the additions is fixed.
__device__ __forceinline__ float block_sum(float v, float *part) {
    __syncthreads();
    part[threadIdx.x] = v;
    for (int d = THREADS / 2; d; d >>= 1) {
        __syncthreads();
        if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
    }
    __syncthreads();
    return part[0];
}

// out[k] = (y, x, 0, 0, height, noise, on rim) of windows[k], (h, w): its highest pixel, and whether that lies on the
// rim of the search or of the window.
// around[k] = (y, x), centre of the search. The noise is the standard deviation of the pixels further than `exclude`
// from the maximum. Of equal maxima the first one is used.
// Launch: one block of THREADS threads for each window; thread 0 writes. Bytes: 4 * h * w, twice more from the caches.
extern "C" __global__ void __launch_bounds__(THREADS)
    find_peaks(const float *__restrict__ windows, int h, int w, const float *__restrict__ around, float radius,
               float exclude, float *__restrict__ out) {
    __shared__ float part[THREADS];
    __shared__ int where[THREADS];
    const float *window = windows + (size_t)blockIdx.x * h * w;
    const float cy = around[2 * blockIdx.x], cx = around[2 * blockIdx.x + 1];
    out += (size_t)blockIdx.x * 7;

    float best = -INFINITY;
    int at = NOT_FOUND;
    for (int i = threadIdx.x; i < h * w; i += THREADS) {
        const float dy = i / w - cy, dx = i % w - cx;
        if (dy * dy + dx * dx <= radius * radius && window[i] > best) {
            best = window[i];
            at = i;
        }
    }
    part[threadIdx.x] = best;
    where[threadIdx.x] = at;
    for (int d = THREADS / 2; d; d >>= 1) {
        __syncthreads();
        const int other = threadIdx.x + d;
        if (threadIdx.x < d && (part[other] > part[threadIdx.x] ||
                                (part[other] == part[threadIdx.x] && where[other] < where[threadIdx.x]))) {
            part[threadIdx.x] = part[other];
            where[threadIdx.x] = where[other];
        }
    }
    __syncthreads();
    best = part[0];
    at = where[0];
    if (at == NOT_FOUND) {
        if (threadIdx.x == 0) {
            out[0] = cy;
            out[1] = cx;
            out[2] = out[3] = out[4] = out[5] = 0;
            out[6] = 1;
        }
        return;
    }
    const int y = at / w, x = at % w;

    float sum = 0, count = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < h * w; i += THREADS) {
        const float dy = i / w - y, dx = i % w - x;
        const bool far = dy * dy + dx * dx > exclude * exclude;
        sum += far ? window[i] : 0.f;
        count += far;
    }
    sum = block_sum(sum, part);
    count = block_sum(count, part);
    const float mean = sum / fmaxf(count, 1.f);
    float squares = 0;
#pragma unroll 1
    for (int i = threadIdx.x; i < h * w; i += THREADS) {
        const float dy = i / w - y, dx = i % w - x, d = window[i] - mean;
        squares += dy * dy + dx * dx > exclude * exclude ? d * d : 0.f;
    }
    squares = block_sum(squares, part);
    const float noise = count > 1 ? sqrtf(squares / count) : 0.f;

    if (threadIdx.x) return;
    bool rim = y < 2 || x < 2 || y >= h - 2 || x >= w - 2;
    if (!rim)
#pragma unroll 1
        for (int k = 0; k < 9; k++) rim = rim || window[(y - 1 + k / 3) * w + x - 1 + k % 3] > best;
    out[0] = y;
    out[1] = x;
    out[2] = out[3] = 0;
    out[4] = best;
    out[5] = noise;
    out[6] = rim;
}

// Row k: factors of u^k in the quartic through values at -2, -1, 0, 1, 2.
__constant__ float QUARTIC[5][5] = {{0.f, 0.f, 1.f, 0.f, 0.f},
                                    {1.f / 12, -2.f / 3, 0.f, 2.f / 3, -1.f / 12},
                                    {-1.f / 24, 2.f / 3, -1.25f, 2.f / 3, -1.f / 24},
                                    {-1.f / 12, 1.f / 6, 0.f, -1.f / 6, 1.f / 12},
                                    {1.f / 24, -1.f / 6, 0.25f, -1.f / 6, 1.f / 24}};

// Maximum of the biquartic sum_km c[5 * k + m] u^k v^m near (0, 0) by Newton's method: (u, v, value); 0 if it leaves
// the pixel or there is no maximum.
__device__ __forceinline__ float3 maximum(const float *c) {
    float u = 0, v = 0, f = 0;
#pragma unroll 1
    for (int step = 0; step < 20; step++) {
        float fu = 0, fv = 0, fuu = 0, fvv = 0, fuv = 0;
        f = 0;
        // Horner's scheme in u of polynomials in v, with both derivatives.
#pragma unroll 1
        for (int k = 4; k >= 0; k--) {
            float p = 0, pv = 0, pvv = 0;
            for (int m = 4; m >= 0; m--) {
                pvv = pvv * v + 2 * pv;
                pv = pv * v + p;
                p = p * v + c[5 * k + m];
            }
            fuu = fuu * u + 2 * fu;
            fuv = fuv * u + fv;
            fu = fu * u + f;
            f = f * u + p;
            fvv = fvv * u + pvv;
            fv = fv * u + pv;
        }
        const float det = fuu * fvv - fuv * fuv;
        if (!(fuu < 0 && det > 0)) return make_float3(0.f, 0.f, 0.f);
        const float su = (fuv * fv - fvv * fu) / det, sv = (fuv * fu - fuu * fv) / det;
        u += su;
        v += sv;
        if (fabsf(u) > 1 || fabsf(v) > 1) return make_float3(0.f, 0.f, 0.f);
        if (fabsf(su) + fabsf(sv) < 1e-6f) break;
    }
    return make_float3(u, v, f);
}

// Moves peaks that are not on the rim to the maximum of the biquartic through the 5 x 5 values around them: sets
// (dy, dx, height) of out[k]. The correlation is oversampled by its low-pass, so that the polynomial is accurate.
// Launch: one thread for each window, REFINE_THREADS a block. Bytes: 100 of each window.
extern "C" __global__ void __launch_bounds__(REFINE_THREADS)
    refine_peaks(const float *__restrict__ windows, int count, int h, int w, float *__restrict__ out) {
    __shared__ float values[REFINE_THREADS][25], coefficients[REFINE_THREADS][25];
    const int q = blockIdx.x * REFINE_THREADS + threadIdx.x;
    if (q >= count) return;
    out += (size_t)q * 7;
    if (out[6] != 0) return;
    const float *window = windows + ((size_t)q * h + (int)out[0] - 2) * w + (int)out[1] - 2;
    float *v = values[threadIdx.x], *c = coefficients[threadIdx.x];
    const float best = out[4];
    // Relative to the maximum, because small differences near it need all digits.
    float depth = 0;
    for (int k = 0; k < 25; k++) {
        v[k] = window[k / 5 * w + k % 5] - best;
        depth = fmaxf(depth, -v[k]);
    }
    if (depth == 0) return;
    const float unit = 1 / depth;
#pragma unroll 1
    for (int k = 0; k < 25; k++) {
        float sum = 0;
#pragma unroll 1
        for (int e = 0; e < 25; e++) sum += QUARTIC[k / 5][e / 5] * QUARTIC[k % 5][e % 5] * v[e];
        c[k] = sum * unit;
    }
    const float3 top = maximum(c);
    out[2] = top.x;
    out[3] = top.y;
    out[4] = best + depth * top.z;
}

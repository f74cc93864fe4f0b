// Power of the sum of shifted frames, and sum of the frames' powers.
#include "complex.cuh"

// partial[b][0][i] = |sum_t F[b][t][i] phase(b, t, i)|^2        partial[b][1][i] = sum_t |F[b][t][i]|^2
// Launch: (ceil(sxh / THREADS), sy, batch) blocks of THREADS threads, one coefficient i = (r, c) each.
// Bytes per coefficient: 8 for each frame, 8 written; the tables stay in the caches.
extern "C" __global__ void __launch_bounds__(THREADS)
    power(const float2 *__restrict__ spectra, const float2 *__restrict__ phase_y, const float2 *__restrict__ phase_x,
          int frames, int sy, int sxh, float *__restrict__ partial) {
    const int c = blockIdx.x * THREADS + threadIdx.x, r = blockIdx.y;
    if (c >= sxh) return;
    const size_t b = blockIdx.z, size = (size_t)sy * sxh, i = (size_t)r * sxh + c;
    float2 sum = make_float2(0.f, 0.f);
    float each = 0;
    for (int t = 0; t < frames; t++) {
        const size_t k = b * frames + t;
        const float2 f = spectra[k * size + i];
        const float2 v = times(times(f, phase_y[k * sy + r]), phase_x[k * sxh + c]);
        sum.x += v.x;
        sum.y += v.y;
        each += f.x * f.x + f.y * f.y;
    }
    partial[2 * b * size + i] = sum.x * sum.x + sum.y * sum.y;
    partial[(2 * b + 1) * size + i] = each;
}

// mean[i] = mean over b of partial[b][i], i < size. Launch: one thread for each i, THREADS a block.
extern "C" __global__ void __launch_bounds__(THREADS)
    mean_of_batch(const float *__restrict__ partial, int batch, long long size, float *__restrict__ mean) {
    const long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (i >= size) return;
    float sum = 0;
    for (int b = 0; b < batch; b++) sum += partial[b * size + i];
    mean[i] = sum / batch;
}

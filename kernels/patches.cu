// Patches of shifted frames: the spectra are multiplied by the phases of the shifts and transformed back; patches are
// cut and transformed. cuFFT does the transforms.
#include "complex.cuh"

// Coefficient (r, c) of shifted spectrum k.
__device__ __forceinline__ float2 shifted(const float2 *spectra, const float2 *phase_y, const float2 *phase_x, int by,
                                          int bxh, size_t k, int r, int c) {
    return times(times(spectra[(k * by + r) * bxh + c], phase_y[k * by + r]), phase_x[k * bxh + c]);
}

// out[k][r][c] = scale * spectra[k][r][c] * phase_y[k][r] * phase_x[k][c], and 0 for the mean. In the self-conjugate
// columns (0 and Nyquist) only the part that belongs to a real image is kept. A shift by a fraction of a pixel and the
// crop make other parts, whose effect on an inverse transform to a real image is undefined.
// Launch: (ceil((bx / 2 + 1) / THREADS), by, frames) blocks of THREADS threads, one output each.
// Bytes: 16 per coefficient.
extern "C" __global__ void __launch_bounds__(THREADS)
    shift_spectra(const float2 *__restrict__ spectra, const float2 *__restrict__ phase_y,
                  const float2 *__restrict__ phase_x, int by, int bx, float scale, float2 *__restrict__ out) {
    const int c = blockIdx.x * THREADS + threadIdx.x, r = blockIdx.y, bxh = bx / 2 + 1;
    if (c >= bxh) return;
    const size_t k = blockIdx.z;
    float2 v = shifted(spectra, phase_y, phase_x, by, bxh, k, r, c);
    if (c == 0 || 2 * c == bx) {
        const float2 mirrored = shifted(spectra, phase_y, phase_x, by, bxh, k, r ? by - r : 0, c);
        v = make_float2(0.5f * (v.x + mirrored.x), 0.5f * (v.y - mirrored.y));
    }
    if (r == 0 && c == 0) v = make_float2(0.f, 0.f);
    out[(k * by + r) * bxh + c] = make_float2(scale * v.x, scale * v.y);
}

// out[p][t][y][x] = images[t][corner_y[p] + y][corner_x[p] + x]; corners are (y, x).
// Launch: (patches * frames, py) blocks of THREADS threads, one output row each. Bytes: 8 per output.
extern "C" __global__ void __launch_bounds__(THREADS)
    cut(const float *__restrict__ images, int frames, int by, int bx, const int *__restrict__ corners, int px,
        float *__restrict__ out) {
    const size_t p = blockIdx.x / frames, t = blockIdx.x % frames;
    const int y = blockIdx.y;
    const float *from = images + (t * by + corners[2 * p] + y) * bx + corners[2 * p + 1];
    float *to = out + ((size_t)blockIdx.x * gridDim.y + y) * px;
    for (int x = threadIdx.x; x < px; x += THREADS) to[x] = from[x];
}

// Spectra of patches without their mean: spectra[k][0][0] = 0. Launch: one thread for each spectrum, THREADS a block.
extern "C" __global__ void __launch_bounds__(THREADS) clear_mean(float2 *spectra, int count, long long coefficients) {
    const int k = blockIdx.x * THREADS + threadIdx.x;
    if (k < count) spectra[k * coefficients] = make_float2(0.f, 0.f);
}

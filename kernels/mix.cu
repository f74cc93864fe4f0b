// Spectrum of one image from the spectra of sums of frames, filtered by radial frequency and whitened (`backend.Mix`):
//
//     total[r][c] = factors[i] * spectrum[r][c] + (total[r][c] unless `first`)
//     if `last`:  total[r][c] *= scale / sqrt(max(sum_lm power[j][l][m] cos(l w_r) cos(m w_c), lost))
//
// i = floor(f * n * sqrt(2)), at most n - 1, for a table of n entries, j likewise; f = hypot(f_r, f_c) in cycles per
// pixel, w = 2 pi f.
// along_y[r] and along_x[c] hold (f, cos w, cos 2w, .. cos 5w). spectrum and total may be the same.
#define LAGS 6

__device__ __forceinline__ int radial(float f, int n) { return min((int)(f * (1.41421356f * n)), n - 1); }

// Launch: (ceil(nxh / THREADS), ny) blocks of THREADS threads, one coefficient each.
// Bytes per coefficient: 16, and 8 more unless first; the tables stay in the caches.
extern "C" __global__ void __launch_bounds__(THREADS)
    mix(const float2 *spectrum, int nxh, const float *__restrict__ along_y, const float *__restrict__ along_x,
        const float *__restrict__ factors, int n_factors, const float *__restrict__ power, int n_power,
        int first, int last, float lost, float scale, float2 *total) {
    const int c = blockIdx.x * THREADS + threadIdx.x, r = blockIdx.y;
    if (c >= nxh) return;
    const float *y = along_y + r * LAGS, *x = along_x + c * LAGS;
    const float f = sqrtf(y[0] * y[0] + x[0] * x[0]);
    const size_t k = (size_t)r * nxh + c;
    float2 v = spectrum[k];
    const float factor = factors[radial(f, n_factors)];
    v = make_float2(factor * v.x, factor * v.y);
    if (!first) {
        const float2 before = total[k];
        v = make_float2(before.x + v.x, before.y + v.y);
    }
    if (last) {
        const float *p = power + LAGS * LAGS * radial(f, n_power);
        float mean = 0;
#pragma unroll
        for (int l = 0; l < LAGS; l++) {
            float row = p[l * LAGS];
#pragma unroll
            for (int m = 1; m < LAGS; m++) row += p[l * LAGS + m] * x[m];
            mean += l ? row * y[l] : row;
        }
        const float white = scale / sqrtf(fmaxf(mean, lost));
        v = make_float2(white * v.x, white * v.y);
    }
    total[k] = v;
}

// One image's spectrum from the spectra of sums of frames, filtered by radial frequency and whitened (`backend.Mix`):
//
//     total[r][c] = factors[i] * spectrum[r][c] + (total[r][c] unless `first`)
//     if `last`:  total[r][c] *= scale / sqrt(max(sum_lm power[j][l][m] cos(l w_r) cos(m w_c), lost))
//
// i = floor(f * n * sqrt(2)), at most n - 1, for a table of n entries, j likewise; f = hypot(f_r, f_c) in cycles per
// pixel, w = 2 pi f.
// along_y[r] and along_x[c] hold (f, cos w, cos 2w, cos 3w). spectrum and total may be the same.

__device__ __forceinline__ int radial(float f, int n) { return min((int)(f * (1.41421356f * n)), n - 1); }

// Launch: (ceil(nxh / 128), ny) blocks of 128 threads, one coefficient each.
// Bytes per coefficient: 16, and 8 more unless first; the tables stay in the caches.
extern "C" __global__ void __launch_bounds__(128)
    mix(const float2 *spectrum, int nxh, const float4 *__restrict__ along_y, const float4 *__restrict__ along_x,
        const float *__restrict__ factors, int n_factors, const float4 *__restrict__ power, int n_power,
        int first, int last, float lost, float scale, float2 *total) {
    const int c = blockIdx.x * 128 + threadIdx.x, r = blockIdx.y;
    if (c >= nxh) return;
    const float4 y = along_y[r], x = along_x[c];
    const float f = sqrtf(y.x * y.x + x.x * x.x);
    const size_t k = (size_t)r * nxh + c;
    float2 v = spectrum[k];
    const float factor = factors[radial(f, n_factors)];
    v = make_float2(factor * v.x, factor * v.y);
    if (!first) {
        const float2 before = total[k];
        v = make_float2(before.x + v.x, before.y + v.y);
    }
    if (last) {
        const float4 *p = power + 4 * radial(f, n_power);
        const float4 p0 = p[0], p1 = p[1], p2 = p[2], p3 = p[3];  // of cos(0), cos(w_r), cos(2 w_r), cos(3 w_r)
        const float mean = p0.x + p1.x * y.y + p2.x * y.z + p3.x * y.w +
                           (p0.y + p1.y * y.y + p2.y * y.z + p3.y * y.w) * x.y +
                           (p0.z + p1.z * y.y + p2.z * y.z + p3.z * y.w) * x.z +
                           (p0.w + p1.w * y.y + p2.w * y.z + p3.w * y.w) * x.w;
        const float white = scale / sqrtf(fmaxf(mean, lost));
        v = make_float2(white * v.x, white * v.y);
    }
    total[k] = v;
}

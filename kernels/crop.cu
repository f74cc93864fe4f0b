// Crops of spectra around frequency zero.

// Spectra of frames; by is even. out[k][r][c] = full[k][s][c] with s = r if r < by / 2, else fy - by + r.
// Launch: (ceil(bxh / THREADS), by, frames) blocks of THREADS threads, one output coefficient each.
// Bytes: 16 per output.
extern "C" __global__ void __launch_bounds__(THREADS)
    crop(const float2 *__restrict__ full, int fy, int fxh, int by, int bxh, float2 *__restrict__ out) {
    const int c = blockIdx.x * THREADS + threadIdx.x, r = blockIdx.y;
    if (c >= bxh) return;
    const size_t k = blockIdx.z;
    const int row = r < by / 2 ? r : fy - by + r;
    out[(k * by + r) * bxh + c] = full[(k * fy + row) * fxh + c];
}

// Spectrum of an image with fy rows and fx columns, cropped to by rows and bx columns and multiplied by scale. The
// Nyquist frequencies of the crop are set to 0 along each axis that gets smaller, because their conjugate partners are
// missing.
// Launch: (ceil((bx / 2 + 1) / THREADS), by) blocks of THREADS threads, one output coefficient each.
// Bytes: 16 per output.
extern "C" __global__ void __launch_bounds__(THREADS)
    crop_image(const float2 *__restrict__ full, int fy, int fx, int by, int bx, float scale, float2 *__restrict__ out) {
    const int c = blockIdx.x * THREADS + threadIdx.x, r = blockIdx.y, bxh = bx / 2 + 1;
    if (c >= bxh) return;
    const int row = r < (by + 1) / 2 ? r : fy - by + r;
    const bool ambiguous = (2 * r == by && by < fy) || (2 * c == bx && bx < fx);
    const float2 v = full[(size_t)row * (fx / 2 + 1) + c];
    out[(size_t)r * bxh + c] = ambiguous ? make_float2(0.f, 0.f) : make_float2(scale * v.x, scale * v.y);
}

// The part of spectra around zero frequency: out[k][r][c] = full[k][r or fy - by + r][c], the second from by / 2 on.
// Launch: (ceil(bxh / 128), by, frames) blocks of 128 threads, one output coefficient each. Bytes: 16 per output.
extern "C" __global__ void __launch_bounds__(128)
    crop(const float2 *__restrict__ full, int fy, int fxh, int by, int bxh, float2 *__restrict__ out) {
    const int c = blockIdx.x * 128 + threadIdx.x, r = blockIdx.y;
    if (c >= bxh) return;
    const size_t k = blockIdx.z;
    const int row = r < by / 2 ? r : fy - by + r;
    out[(k * by + r) * bxh + c] = full[(k * fy + row) * fxh + c];
}

// Table of the phases of shifts: out[i][k] = exp(-2 pi i frequency[k] shift[i * stride]).
// Launch: (shifts, ceil(count / THREADS)) blocks of THREADS threads, one output each.
extern "C" __global__ void __launch_bounds__(THREADS)
    phase_table(const float *__restrict__ shift, int stride, const float *__restrict__ frequency, int count,
                float2 *__restrict__ out) {
    const int k = blockIdx.y * THREADS + threadIdx.x;
    const size_t i = blockIdx.x;
    if (k >= count) return;
    const float turns = frequency[k] * shift[i * stride];
    float s, c;
    sincospif(-2.f * (turns - rintf(turns)), &s, &c);
    out[i * count + k] = make_float2(c, s);
}

// Correction of raw pixels: out = (raw - dark) * gain, then defects are replaced by the mean of their good neighbours.
#include "raw.cuh"

template <class T>
__device__ __forceinline__ float corrected(const T *raw, const float *dark, const float *gain, long long i) {
    float v = pixel(raw[i]);
    if (dark) v -= dark[i];
    if (gain) v *= gain[i];
    return v;
}

// out[k][y][x] = corrected raw[k][top + y][left + x] of the height x width part of frame k; dark, gain may be null.
// Launch: (ceil(width / PIXEL_THREADS), height, frames) blocks of PIXEL_THREADS threads, one output pixel each.
// Bytes per pixel: size of a raw pixel + 4 for the gain + 4 for the dark + 4 written.
#define CORRECT(NAME, T, SUM)                                                                                     \
    extern "C" __global__ void __launch_bounds__(PIXEL_THREADS)                                                   \
        correct_##NAME(const T *const *__restrict__ raw, int nx, const float *__restrict__ dark,                  \
                       const float *__restrict__ gain, int top, int left, int width, float *__restrict__ out) {   \
        const int x = blockIdx.x * PIXEL_THREADS + threadIdx.x, y = blockIdx.y;                                   \
        const size_t k = blockIdx.z;                                                                              \
        if (x < width)                                                                                            \
            out[(k * gridDim.y + y) * width + x] =                                                                \
                corrected(raw[k], dark, gain, (long long)(top + y) * nx + left + x);                              \
    }

FOR_EACH_PIXEL_TYPE(CORRECT)

// The good neighbours of defect d are neighbours[first[d]] .. neighbours[first[d + 1] - 1]; all are y * nx + x.
// Launch: (ceil(count / THREADS), frames) blocks of THREADS threads, one defect each; it writes that output pixel.
#define REPLACE_DEFECTS(NAME, T, SUM)                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                          \
        replace_defects_##NAME(const T *const *__restrict__ raw, int nx, const float *__restrict__ dark,           \
                               const float *__restrict__ gain, int count, const int *__restrict__ defects,         \
                               const int *__restrict__ first, const int *__restrict__ neighbours, int top,         \
                               int left, int height, int width, float *__restrict__ out) {                         \
        const int d = blockIdx.x * THREADS + threadIdx.x;                                                          \
        const size_t k = blockIdx.y;                                                                               \
        if (d >= count) return;                                                                                    \
        const int y = defects[d] / nx - top, x = defects[d] % nx - left;                                           \
        if (y < 0 || x < 0 || y >= height || x >= width) return;                                                   \
        float sum = 0;                                                                                             \
        const int from = first[d], to = first[d + 1];                                                              \
        _Pragma("unroll 1") for (int n = from; n < to; n++) sum += corrected(raw[k], dark, gain, neighbours[n]);   \
        out[(k * height + y) * width + x] = to > from ? sum / (to - from) : 0.f;                                   \
    }

FOR_EACH_PIXEL_TYPE(REPLACE_DEFECTS)
